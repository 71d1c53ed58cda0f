-- ARGV: server, version.
-- older clean -> absent; lease -> absent; quarantine and dirty remember the version as their floor.
if state == 'L' or (state == 'C' and less(string.sub(entry, 35, 42), ARGV[2])) then
  become_absent()
elseif state == 'Q' and less(string.sub(entry, 12, 19), ARGV[2]) then
  redis.call('SETRANGE', KEYS[2], 11, ARGV[2])
elseif (state == 'D' or state == 'P') and less(string.sub(entry, 36, 43), ARGV[2]) then
  redis.call('SETRANGE', KEYS[2], 35, ARGV[2])
end
return 1
