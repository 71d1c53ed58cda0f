-- KEYS: meta, index of dirty names, claims. ARGV: server, now as a score, limit.
-- Nothing changes. The names of what may be claimed, the oldest first.
local names, offset, limit = {}, 0, tonumber(ARGV[3])
while #names < limit do
  local page = redis.call('ZRANGE', KEYS[2], offset, offset + 499)
  if #page == 0 then break end
  local ends = redis.call('ZMSCORE', KEYS[3], unpack(page))
  for at, name in ipairs(page) do
    if #names < limit and (not ends[at] or tonumber(ends[at]) <= tonumber(ARGV[2])) then table.insert(names, name) end
  end
  offset = offset + #page
end
return names
