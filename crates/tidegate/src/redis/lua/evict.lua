-- ARGV: server. clean, lease -> absent, of whatever generation.
if entry then
  local kind = string.sub(entry, 2, 2)
  if kind == 'C' or kind == 'L' then become_absent() end
end
return 1
