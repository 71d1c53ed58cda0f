-- KEYS: meta, index of dirty names, parked names, figures of the shard. ARGV: server.
-- Nothing changes. {dirty entries, parked entries, bytes, the age of the oldest}.
local oldest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return {
  redis.call('ZCARD', KEYS[2]), redis.call('ZCARD', KEYS[3]), redis.call('HGET', KEYS[4], 'bytes') or '0', oldest[2] or '',
}
