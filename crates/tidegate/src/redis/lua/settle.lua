-- ARGV from 4: claimed version, what became of it (S stored, A again, O over, P parked, D dropped), and for
-- S fresh until and kept for, A the moment as a score, O the version of the row, P what the store said.
-- dirty, parked -> clean, dirty, parked or absent. 1 if it is not dirty any more.
local claimed, became = ARGV[4], ARGV[5]
if not dirty then
  if became == 'S' then outdate(claimed) end
  return 1
end
local is_same = known == claimed
-- Of an earlier generation: a later write of this cache may be lost. Closed: one of before may still come.
local known_high = struct.unpack('>I4', known)
local stays_clean = is_open and math.floor(known_high / 4096) >= tonumber(decimal(generation))
if became == 'S' then
  if is_same then
    if stays_clean and not less(known, dirty.floor) then
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
    -- The new version is of this generation, and the write is not: nothing is above this floor.
    if not stays_clean then dirty.floor = string.rep('\255', 8) end
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
