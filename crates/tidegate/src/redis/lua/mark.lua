-- ARGV: server, token, name, deadline, deadline as a score.
-- all but dirty and parked -> quarantine with this mark; tainted, if the shard is closed. 1 if so.
if state == 'D' or state == 'P' then return 0 end
quarantine = quarantine or { tainted = false, floor = NONE, fresh_until = NONE, kept_for = NONE, marks = '' }
quarantine.tainted = quarantine.tainted or not is_open
if not place_of(ARGV[2]) then
  quarantine.marks = quarantine.marks .. ARGV[2] .. ARGV[4]
  redis.call('ZADD', KEYS[3], ARGV[5], generation .. ARGV[2] .. ARGV[4] .. ARGV[3])
end
settle()
return 1
