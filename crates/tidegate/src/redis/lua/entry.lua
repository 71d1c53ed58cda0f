-- KEYS[2] is the entry. Its state is C, L, Q, D or P (see layout.rs), or A for absent, which is also what is of
-- another generation, dirty and parked entries aside. One of an unknown layout is absent where nothing is lost by it.
local entry = redis.call('GET', KEYS[2])
local state = 'A'
if entry then
  state = string.sub(entry, 2, 2)
  local is_known = string.byte(entry, 1) == 1
  if state == 'C' or state == 'L' then
    if not is_known or string.sub(entry, 3, 10) ~= generation then state = 'A' end
  elseif not is_known then
    return 'X'
  elseif state == 'Q' then
    if string.sub(entry, 3, 10) ~= generation then state = 'A' end
  elseif state ~= 'D' and state ~= 'P' then
    return 'X'
  end
end

local function become_clean(fresh_until, kept_for, held)
  redis.call('SET', KEYS[2], '\1C' .. generation .. fresh_until .. NONE .. NONE .. held, 'PX', decimal(kept_for))
end

local function become_absent()
  redis.call('DEL', KEYS[2])
end
