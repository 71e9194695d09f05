-- A rate limit, by the server's clock.
--
-- KEYS[1]  string
-- ARGV     verb and its words:
--            gcra interval burst cost → {allowed, remaining, retry after µs, reset after µs}. The
--                                       key holds the theoretical arrival time in µs; each use
--                                       moves it by interval (µs), and it may run ahead of now by
--                                       burst intervals
--            window ms limit cost     → {allowed, remaining, retry after ms, reset after ms, count}:
--                                       uses in a window that begins with the first
-- Cost     O(1)
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
if ARGV[1] == 'gcra' then
  local interval, burst, cost = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
  local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
  local ahead = interval * burst
  local new = tat + interval * cost
  if new - now > ahead then
    return {0, math.max(math.floor((ahead - (tat - now)) / interval), 0), new - now - ahead, tat - now}
  end
  if cost > 0 then
    redis.call('SET', KEYS[1], string.format('%.0f', new), 'PX', math.ceil((new - now) / 1000) + 1)
  end
  return {1, math.floor((ahead - (new - now)) / interval), 0, new - now}
end
local ms, limit, cost = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local count = tonumber(redis.call('GET', KEYS[1]) or 0)
local left = redis.call('PTTL', KEYS[1])
if left < 0 then left = ms end
if count + cost > limit then return {0, math.max(limit - count, 0), left, left, count} end
if cost > 0 then
  count = redis.call('INCRBY', KEYS[1], cost)
  if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ms) end
end
return {1, limit - count, 0, left, count}
