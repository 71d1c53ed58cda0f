-- Versions, generations, tokens and moments are strings of eight bytes, the highest first: Lua has only doubles, and
-- compares strings by the locale. They are compared as two halves.
local NONE = string.rep('\0', 8)

local function less(a, b)
  local a_high, a_low = struct.unpack('>I4I4', a)
  local b_high, b_low = struct.unpack('>I4I4', b)
  return a_high < b_high or (a_high == b_high and a_low < b_low)
end

local function newest(a, b)
  if less(a, b) then return b end
  return a
end

-- As a score of a sorted set, or as milliseconds for PX. Exact below 2^53.
local function decimal(number)
  local high, low = struct.unpack('>I4I4', number)
  return string.format('%.0f', high * 4294967296 + low)
end

-- The clock of the server, in milliseconds. Only the end of a lease depends on it, so an error costs a load.
local function server_time()
  local time = redis.call('TIME')
  local millis = time[1] * 1000 + math.floor(time[2] / 1000)
  return struct.pack('>I4I4', math.floor(millis / 4294967296), millis % 4294967296)
end
