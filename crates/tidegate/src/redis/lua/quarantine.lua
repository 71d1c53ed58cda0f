-- KEYS[3] is the index of the marks of the shard: generation, token, deadline and name, by deadline.
local quarantine
if state == 'Q' then
  local count = struct.unpack('>I4', string.sub(entry, 37, 40))
  local marks_end = 40 + 16 * count
  quarantine = {
    tainted = string.byte(entry, 11) == 1,
    floor = string.sub(entry, 12, 19),
    fresh_until = string.sub(entry, 21, 28),
    kept_for = string.sub(entry, 29, 36),
    marks = string.sub(entry, 41, marks_end),
  }
  if string.byte(entry, 20) == 1 then quarantine.best = string.sub(entry, marks_end + 1) end
end

-- Where the mark of this token is among the marks, or nothing.
local function place_of(token)
  for at = 1, #quarantine.marks, 16 do
    if string.sub(quarantine.marks, at, at + 7) == token then return at end
  end
end

-- Puts it down; without a mark it becomes clean with the best it was brought, or absent.
local function settle()
  local q = quarantine
  if q.marks == '' then
    if q.best and not q.tainted and not less(string.sub(q.best, 1, 8), q.floor) then
      become_clean(q.fresh_until, q.kept_for, q.best)
    else
      become_absent()
    end
    return
  end
  redis.call('SET', KEYS[2], '\1Q' .. generation .. (q.tainted and '\1' or '\0') .. q.floor
    .. (q.best and '\1' or '\0') .. q.fresh_until .. q.kept_for
    .. struct.pack('>I4', #q.marks / 16) .. q.marks .. (q.best or ''))
end

-- Takes the mark of this token away. False if it is not there.
local function take_mark(token, name)
  local at = place_of(token)
  if not at then return false end
  local mark = string.sub(quarantine.marks, at, at + 15)
  quarantine.marks = string.sub(quarantine.marks, 1, at - 1) .. string.sub(quarantine.marks, at + 16)
  redis.call('ZREM', KEYS[3], generation .. mark .. name)
  return true
end
