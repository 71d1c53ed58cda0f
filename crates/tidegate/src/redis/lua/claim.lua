-- ARGV from 4: now and the end of the claim as scores.
-- dirty -> the same, claimed. The entry, or nothing if it is not dirty or somebody else has claimed it.
if state ~= 'D' then
  if state ~= 'P' then redis.call('ZREM', KEYS[3], ARGV[2]) end
  return false
end
local claim_end = redis.call('ZSCORE', KEYS[5], ARGV[2])
if claim_end and tonumber(claim_end) > tonumber(ARGV[4]) then return false end
redis.call('ZADD', KEYS[5], ARGV[5], ARGV[2])
dirty.claimed, dirty.again = known, false
keep()
return entry
