-- ARGV: server, token, fresh until, kept for, held.
-- lease of this token -> clean; clean with a lease of this token -> clean, if that is not older. 1 if so.
local may = state == 'L' and string.sub(entry, 11, 18) == ARGV[2]
if state == 'C' and string.sub(entry, 19, 26) == ARGV[2] and less(server_time(), string.sub(entry, 27, 34)) then
  may = not less(string.sub(ARGV[5], 1, 8), string.sub(entry, 35, 42))
end
if not may then return 0 end
become_clean(ARGV[3], ARGV[4], ARGV[5])
return 1
