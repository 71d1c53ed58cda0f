-- KEYS: meta, index of parked names. ARGV: server, limit. Nothing changes. Their names.
local limit = tonumber(ARGV[2])
if limit == 0 then return {} end
return redis.call('ZRANGE', KEYS[2], 0, limit - 1)
