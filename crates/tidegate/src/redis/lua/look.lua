-- ARGV: server. Nothing changes. The entry, if it is there.
return entry
