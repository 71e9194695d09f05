-- Takes at most 100 such messages into custody; whoever takes a tag out of the index first has its message.
--
-- KEYS[1] `unacked_index`. ARGV: 1 `unacked`, 2 prefix of the bridge's keys, then pairs of tag and message.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 3, #ARGV, 2 do
  if redis.call('ZREM', KEYS[1], ARGV[i]) == 1 then
    redis.call('HDEL', ARGV[1], ARGV[i])
    local id = redis.sha1hex(ARGV[i + 1])
    redis.call('HSET', ARGV[2] .. ':held', id, ARGV[i + 1])
    redis.call('ZADD', ARGV[2] .. ':open', now, id)
  end
end
