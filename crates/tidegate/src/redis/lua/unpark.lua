-- ARGV from 4: version, now. parked in this version -> dirty. 1 if so.
if state ~= 'P' or known ~= ARGV[4] then return 0 end
dirty.said, dirty.since = false, ARGV[5]
keep()
return 1
