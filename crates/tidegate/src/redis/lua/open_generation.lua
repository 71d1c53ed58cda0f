-- KEYS: meta. ARGV: server, generation.
-- The shard gets the generation for this server, and is closed; unless it has one for it, or one as great.
local meta = redis.call('GET', KEYS[1])
if meta and (#meta ~= 26 or string.byte(meta, 1) ~= 1) then return 'X' end
if meta and (string.sub(meta, 11, 26) == ARGV[1] or not less(string.sub(meta, 2, 9), ARGV[2])) then return {meta} end
if ARGV[2] == NONE then return {} end
meta = '\1' .. ARGV[2] .. '\0' .. ARGV[1]
redis.call('SET', KEYS[1], meta)
return {meta}
