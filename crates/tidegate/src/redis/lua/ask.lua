-- ARGV: server, token, now, lease in milliseconds.
-- absent -> lease, if the shard is open; clean and not fresh -> the same with a lease beside it. All else stays.
-- {'F', entry} found, {'L', entry?} leased, {'W', entry?} leased to another, {'B'} bypass.
if state == 'D' or state == 'P' then return {'F', entry} end
if state == 'Q' then return {'B'} end
if state == 'L' then return {'W'} end
if state == 'C' then
  if less(ARGV[3], string.sub(entry, 11, 18)) then return {'F', entry} end
  local time = server_time()
  if less(time, string.sub(entry, 27, 34)) then return {'W', entry} end
  if not is_open then return {'B'} end
  local high, low = struct.unpack('>I4I4', time)
  local millis = high * 4294967296 + low + tonumber(ARGV[4])
  local lease_end = struct.pack('>I4I4', math.floor(millis / 4294967296), millis % 4294967296)
  -- Leaves the time to live as it is.
  redis.call('SETRANGE', KEYS[2], 18, ARGV[2] .. lease_end)
  return {'L', entry}
end
if not is_open then return {'B'} end
redis.call('SET', KEYS[2], '\1L' .. generation .. ARGV[2], 'PX', ARGV[4])
return {'L'}
