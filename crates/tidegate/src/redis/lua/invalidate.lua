-- ARGV: server, version.
outdate(ARGV[2])
return 1
