-- KEYS: meta, entry, index of marks. ARGV: server, mark.
-- A mark of another generation goes, and its quarantine, which is absent already.
if string.sub(ARGV[2], 1, 8) == generation then return 0 end
if entry and string.sub(entry, 2, 2) == 'Q' and state == 'A' then become_absent() end
redis.call('ZREM', KEYS[3], ARGV[2])
return 1
