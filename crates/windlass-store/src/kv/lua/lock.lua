-- A lock: one holder, until it lets go or its time is over.
--
-- KEYS[1]  string, the holder's token
-- ARGV     verb and its words:
--            acquire token ttl → {1, fence} or {0, ms left of the holder's time}. fence rises with
--                                every holder: the one before plus one, or the time in µs if that
--                                is more, so that it rises although its key ends after a day
--            renew token ttl   → 1, or 0 when another one or nobody holds it
--            release token     → 1, or 0 likewise
-- Cost     O(1)
local verb, token = ARGV[1], ARGV[2]
local held = redis.call('GET', KEYS[1])
if verb == 'acquire' then
  if held then return {0, redis.call('PTTL', KEYS[1])} end
  local t = redis.call('TIME')
  local key = '{' .. KEYS[1] .. '}:fence'
  local now = t[1] * 1000000 + t[2]
  local fence = math.max(tonumber(redis.call('GET', key) or 0) + 1, now)
  redis.call('SET', key, string.format('%.0f', fence), 'PX', 86400000)
  redis.call('SET', KEYS[1], token, 'PX', ARGV[3])
  return {1, fence}
end
if held ~= token then return 0 end
if verb == 'renew' then return redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return redis.call('DEL', KEYS[1])
