-- ARGV: server, token, name, end (C committed, U committed and not to be seen, A aborted), version, fresh until,
-- kept for, held.
-- quarantine -> less this mark, and clean or absent after the last. Without the mark: quarantine -> tainted,
-- lease -> absent, older clean -> absent.
local ended, version = ARGV[4], ARGV[5]
if state == 'Q' then
  if take_mark(ARGV[2], ARGV[3]) then
    if ended == 'C' and not (quarantine.best and not less(string.sub(quarantine.best, 1, 8), version)) then
      quarantine.best, quarantine.fresh_until, quarantine.kept_for = ARGV[8], ARGV[6], ARGV[7]
    elseif ended == 'U' then
      quarantine.floor = newest(quarantine.floor, version)
    end
  else
    quarantine.tainted = true
  end
  settle()
elseif state == 'L' or (state == 'C' and ended ~= 'A' and less(string.sub(entry, 35, 42), version)) then
  become_absent()
end
return 1
