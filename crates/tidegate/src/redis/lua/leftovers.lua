-- KEYS: meta, index of marks. ARGV: server, deadline as a score, limit.
-- Nothing changes. {marks of this generation, marks of others, which mean nothing any more}.
local found, void = {}, {}
local offset, limit = 0, tonumber(ARGV[3])
while #found < limit and #void < 100 do
  local page = redis.call('ZRANGE', KEYS[2], '-inf', ARGV[2], 'BYSCORE', 'LIMIT', offset, 500)
  for _, mark in ipairs(page) do
    if string.sub(mark, 1, 8) ~= generation then
      if #void < 100 then table.insert(void, mark) end
    elseif #found < limit then
      table.insert(found, mark)
    end
  end
  offset = offset + #page
  if #page < 500 then break end
end
return {found, void}
