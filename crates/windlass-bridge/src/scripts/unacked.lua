-- Messages that a Celery worker took long ago and never acknowledged: it is gone.
--
-- KEYS[1] kombu's `unacked_index` (zset: tag by when it was taken, in s). ARGV: 1 kombu's `unacked`
-- (hash: tag to [message, exchange, routing key] as JSON), 2 how long ago (s), 3 first of a page of 100.
-- Reply: tag and entry, one after the other.
local t = redis.call('TIME')
local rows = {}
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', t[1] - ARGV[2], 'LIMIT', ARGV[3], 100)) do
  rows[#rows + 1] = tag
  rows[#rows + 1] = redis.call('HGET', ARGV[1], tag) or ''
end
return rows
