-- Says when jobs in custody are looked at next.
--
-- KEYS[1] open. ARGV: 1 prefix of the bridge's keys, then groups of id, delay in ms, and what the
-- job became ('': as before). Reply: none. What is no longer in custody is left alone.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 2, #ARGV, 3 do
  local id = ARGV[i]
  if ARGV[i + 2] ~= '' then redis.call('HDEL', ARGV[1] .. ':held', id) end
  if redis.call('ZREM', KEYS[1], id) == 1 then
    redis.call('ZADD', KEYS[1], now + ARGV[i + 1], id)
    if ARGV[i + 2] ~= '' then redis.call('HSET', ARGV[1] .. ':jobs', id, ARGV[i + 2]) end
  end
end
