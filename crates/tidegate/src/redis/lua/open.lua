-- ARGV: server, generation. A shard that still has this generation is opened. 1 if it is open with it now.
if generation ~= ARGV[2] then return 0 end
if not is_open then redis.call('SETRANGE', KEYS[1], 9, '\1') end
return 1
