-- A hash, whole: a candle, or the flag of calm mode. KEYS[1] the hash. ARGV: until when it stands, ms since 1970; then fields and values.
-- Replies 1. One step; O(1).
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
return 1
