-- Says when jobs in custody are looked at next.
--
-- KEYS[1] open. ARGV: 1 prefix of the bridge's keys, then groups of id, delay in ms, the set it is to lie in
-- ('open' or 'later'), and what the job became ('': as before). Reply: none. What is no longer in
-- custody is left alone.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local later = ARGV[1] .. ':later'
for i = 2, #ARGV, 4 do
  local id, became = ARGV[i], ARGV[i + 3]
  if became ~= '' then redis.call('HDEL', ARGV[1] .. ':held', id) end
  if redis.call('ZREM', KEYS[1], id) + redis.call('ZREM', later, id) > 0 then
    redis.call('ZADD', ARGV[i + 2] == 'later' and later or KEYS[1], now + ARGV[i + 1], id)
    if became ~= '' then redis.call('HSET', ARGV[1] .. ':jobs', id, became) end
  end
end
