-- The list of workers. Reads, or writes and drops those gone for 10 minutes (10 at a time).
--
-- KEYS[1]  the hash of workers; the sorted set of when each was seen lies beside it
-- ARGV     none: list. name: take off. name, JSON: announce
-- Reply    list: now, then name, seen ms, JSON per worker; else OK
-- Cost     O(workers) to list, a constant number of commands to write
local SEEN = string.sub(KEYS[1], 1, -8) .. 'seen'
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if #ARGV == 0 then
  local reply = {now}
  local seen = redis.call('ZRANGE', SEEN, 0, -1, 'WITHSCORES')
  for k = 1, #seen, 2 do
    reply[#reply + 1], reply[#reply + 2] = seen[k], seen[k + 1]
    reply[#reply + 1] = redis.call('HGET', KEYS[1], seen[k]) or ''
  end
  return reply
end
redis.call('ZREM', SEEN, ARGV[1])
if #ARGV == 1 then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('ZADD', SEEN, now, ARGV[1])
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  local gone = redis.call('ZRANGEBYSCORE', SEEN, '-inf', now - 600000, 'LIMIT', 0, 10)
  if #gone > 0 then
    redis.call('ZREM', SEEN, unpack(gone))
    redis.call('HDEL', KEYS[1], unpack(gone))
  end
end
return redis.status_reply('OK')
