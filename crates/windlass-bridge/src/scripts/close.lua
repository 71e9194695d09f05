-- Lets jobs go whose end is told, and keeps a note of those that were refused.
--
-- KEYS[1] open. ARGV: 1 prefix of the bridge's keys, 2 notes kept at most, then pairs of id and
-- note ('': none).
for i = 3, #ARGV, 2 do
  redis.call('ZREM', KEYS[1], ARGV[i])
  redis.call('ZREM', ARGV[1] .. ':later', ARGV[i])
  redis.call('HDEL', ARGV[1] .. ':jobs', ARGV[i])
  redis.call('HDEL', ARGV[1] .. ':held', ARGV[i])
  if ARGV[i + 1] ~= '' then
    redis.call('LPUSH', ARGV[1] .. ':refused', ARGV[i + 1])
    redis.call('LTRIM', ARGV[1] .. ':refused', 0, ARGV[2] - 1)
  end
end
