-- ARGV from 4: base or nothing, now, held.
-- absent, lease, anything older -> dirty. {1} if so, 0 if the cache has the same or something newer, 'B' in quarantine.
local version = string.sub(ARGV[6], 1, 8)
if state == 'Q' then return 'B' end
if known and not less(known, version) then return 0 end
local older = dirty
dirty = { base = ARGV[4] ~= '' and ARGV[4], since = ARGV[5], floor = NONE, held = ARGV[6] }
if older then
  if older.base then dirty.base = dirty.base and newest(dirty.base, older.base) or older.base end
  dirty.floor = older.floor
  dirty.found_since = older.found_since
  if not older.said and less(older.since, dirty.since) then dirty.since = older.since end
  redis.call('ZREM', KEYS[5], ARGV[2])
end
if less(issued(), version) then redis.call('HSET', KEYS[6], 'issued', version) end
keep()
return {1}
