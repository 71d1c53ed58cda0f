-- ARGV from 4: version it must have or nothing, now, bytes the shard may have, content (what is held, less the version).
-- absent, lease, clean, dirty, parked -> dirty. {version, whether it was present, if that is known, its base, if that is
-- known}, or the letter of what is in the way: B busy, C changed, F full.
if not is_open or state == 'Q' then return 'B' end
if ARGV[4] ~= '' and known ~= ARGV[4] then return 'C' end
local bytes = bytes_of(NONE .. ARGV[7])
local shard_bytes = tonumber(redis.call('HGET', KEYS[6], 'bytes') or '0')
if bytes > bytes_before and shard_bytes - bytes_before + bytes > tonumber(ARGV[6]) then return 'F' end
local existed = ''
if known then
  local held = dirty and dirty.held or string.sub(entry, 35)
  local flags = string.byte(held, 9)
  local is_over = flags >= 2 and not less(ARGV[5], string.sub(held, 10, 17))
  existed = (flags % 2 == 1 and not is_over) and '1' or '0'
end
local version = issue(known or NONE)
if dirty then
  if dirty.claimed then dirty.again = dirty.again or ARGV[5] end
  if dirty.said then dirty.said, dirty.since = false, ARGV[5] end
else
  dirty = { base = known, since = ARGV[5], floor = NONE }
end
dirty.held = version .. ARGV[7]
keep()
return {version, existed, dirty.base or ''}
