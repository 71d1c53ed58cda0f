-- The store has this version, by somebody else: older clean -> absent; lease -> absent; quarantine and dirty remember
-- the version as their floor.
local function outdate(version)
  if state == 'L' or (state == 'C' and less(string.sub(entry, 35, 42), version)) then
    become_absent()
  elseif state == 'Q' and less(string.sub(entry, 12, 19), version) then
    redis.call('SETRANGE', KEYS[2], 11, version)
  elseif (state == 'D' or state == 'P') and less(string.sub(entry, 36, 43), version) then
    redis.call('SETRANGE', KEYS[2], 35, version)
  end
end
