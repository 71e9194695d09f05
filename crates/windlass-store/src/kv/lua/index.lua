-- An index: names by the time they end.
--
-- KEYS[1]  sorted set
-- ARGV     verb and its words:
--            add name ttl  → OK; the set itself ends a minute after its last name
--            drop name ... → OK (at most 500)
--            take n        → up to n names, gone from the set
--            live n        → up to n names that have not ended, soonest first
--            count         → how many have not ended
-- Cost     O(log n) and what is answered; an add or count forgets at most 100 that have ended
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local verb = ARGV[1]

local function trim()
  local ended = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)
  if #ended > 0 then redis.call('ZREM', KEYS[1], unpack(ended)) end
end

if verb == 'add' then
  local ttl = tonumber(ARGV[3])
  trim()
  redis.call('ZADD', KEYS[1], now + ttl, ARGV[2])
  if redis.call('PTTL', KEYS[1]) < ttl + 60000 then redis.call('PEXPIRE', KEYS[1], ttl + 60000) end
elseif verb == 'drop' then
  redis.call('ZREM', KEYS[1], unpack(ARGV, 2))
elseif verb == 'take' then
  local names = redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[2]) - 1)
  if #names > 0 then redis.call('ZREM', KEYS[1], unpack(names)) end
  return names
elseif verb == 'live' then
  return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'LIMIT', 0, ARGV[2])
elseif verb == 'count' then
  trim()
  return redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')
end
return redis.status_reply('OK')
