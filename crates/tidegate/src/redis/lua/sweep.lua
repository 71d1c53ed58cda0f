-- ARGV: server, token, name.
-- quarantine -> less this mark, and tainted; absent after the last.
if state == 'Q' and take_mark(ARGV[2], ARGV[3]) then
  quarantine.tainted = true
  settle()
end
return 1
