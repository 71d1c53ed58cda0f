-- KEYS[1] is what the cache has of the generation of the shard, ARGV[1] the server that this connection talks to.
-- 'G': the generation was not raised for this server. 'X': written by another version of tidegate.
local meta = redis.call('GET', KEYS[1])
if meta and (#meta ~= 26 or string.byte(meta, 1) ~= 1) then return 'X' end
if not meta or string.sub(meta, 11, 26) ~= ARGV[1] then return 'G' end
local generation = string.sub(meta, 2, 9)
local is_open = string.byte(meta, 10) == 1
