-- ARGV from 4: claimed version, what became of it (S stored, A again, O over, P parked, D dropped), and for
-- S fresh until and kept for, A the moment as a score, O the version of the row, P what the store said.
-- dirty, parked -> clean, dirty, parked or absent. 1 if it is not dirty any more.
if not dirty then return 1 end
local claimed, became = ARGV[4], ARGV[5]
local is_same = known == claimed
if became == 'S' then
  if is_same then
    if is_open and not less(known, dirty.floor) then
      become_clean(ARGV[6], ARGV[7], dirty.held)
    else
      become_absent()
    end
    forget()
    return 1
  end
  -- The cache lost a newer write of its own, which the store has.
  if less(known, claimed) then
    become_absent()
    forget()
    return 1
  end
  dirty.base = dirty.base and newest(dirty.base, claimed) or claimed
  if dirty.again and not less(claimed, dirty.claimed) then dirty.since = dirty.again end
  end_claim()
elseif became == 'A' then
  if not dirty.said then
    end_claim()
    redis.call('ZADD', KEYS[5], ARGV[6], ARGV[2])
  end
elseif became == 'O' then
  if not dirty.said then
    dirty.base = (not is_same and dirty.base) and newest(dirty.base, ARGV[6]) or ARGV[6]
    dirty.held = issue(newest(known, ARGV[6])) .. string.sub(dirty.held, 9)
    end_claim()
  end
elseif became == 'P' then
  if is_same then dirty.said = ARGV[6] end
  end_claim()
elseif is_same then
  become_absent()
  forget()
  return 1
else
  end_claim()
end
keep()
return dirty.said and 1 or 0
