-- KEYS: meta, entry, index of dirty names by age, parked names, claims by their end, figures of the shard.
-- ARGV: server, name, what the entry counts beside its payload; then what each script says.
local dirty
if state == 'D' or state == 'P' then
  local flags = string.byte(entry, 3)
  local said_length = struct.unpack('>I4', string.sub(entry, 44, 47))
  dirty = {
    base = flags % 2 == 1 and string.sub(entry, 4, 11),
    since = string.sub(entry, 12, 19),
    claimed = math.floor(flags / 2) % 2 == 1 and string.sub(entry, 20, 27),
    again = math.floor(flags / 4) % 2 == 1 and string.sub(entry, 28, 35),
    floor = string.sub(entry, 36, 43),
    said = state == 'P' and string.sub(entry, 48, 47 + said_length),
    held = string.sub(entry, 48 + said_length),
  }
  dirty.found_since = dirty.since
end
local known
if dirty then known = string.sub(dirty.held, 1, 8) elseif state == 'C' then known = string.sub(entry, 35, 42) end

-- What an entry that holds this counts.
local function bytes_of(held)
  return tonumber(ARGV[3]) + #held - 17
end
local bytes_before = dirty and bytes_of(dirty.held) or 0

local function count_bytes(bytes)
  if bytes ~= bytes_before then redis.call('HINCRBY', KEYS[6], 'bytes', string.format('%.0f', bytes - bytes_before)) end
end

-- Puts the dirty or parked entry down, and in the index where it belongs.
local function keep()
  local d = dirty
  redis.call('SET', KEYS[2], '\1' .. (d.said and 'P' or 'D')
    .. string.char((d.base and 1 or 0) + (d.claimed and 2 or 0) + (d.again and 4 or 0))
    .. (d.base or NONE) .. d.since .. (d.claimed or NONE) .. (d.again or NONE) .. d.floor
    .. struct.pack('>I4', #(d.said or '')) .. (d.said or '') .. d.held)
  if d.said then
    redis.call('ZREM', KEYS[3], ARGV[2])
    redis.call('ZADD', KEYS[4], 0, ARGV[2])
  elseif state ~= 'D' or d.since ~= d.found_since then
    redis.call('ZADD', KEYS[3], decimal(d.since), ARGV[2])
    if state == 'P' then redis.call('ZREM', KEYS[4], ARGV[2]) end
  end
  count_bytes(bytes_of(d.held))
end

-- It is dirty no more: takes it out of every index.
local function forget()
  redis.call('ZREM', KEYS[3], ARGV[2])
  redis.call('ZREM', KEYS[4], ARGV[2])
  redis.call('ZREM', KEYS[5], ARGV[2])
  count_bytes(0)
end

-- It may be claimed again at once.
local function end_claim()
  dirty.claimed, dirty.again = false, false
  redis.call('ZREM', KEYS[5], ARGV[2])
end

-- The last version the shard gave out, or one as new.
local function issued()
  return redis.call('HGET', KEYS[6], 'issued') or NONE
end

-- The next even version after all that the shard gave out and after this one, in its generation at least.
local function issue(after)
  local _, low_generation = struct.unpack('>I4I4', generation)
  local first = struct.pack('>I4I4', math.min(low_generation, 524287) * 4096, 0)
  local last = newest(newest(issued(), after), first)
  local high, low = struct.unpack('>I4I4', last)
  low = low - low % 2 + 2
  if low >= 4294967296 then high, low = high + 1, low - 4294967296 end
  local version = struct.pack('>I4I4', high, low)
  redis.call('HSET', KEYS[6], 'issued', version)
  return version
end
