-- Tells what is known of an image and counts the read.
--
-- KEYS[1] stat. ARGV: 1 id; 2 evict policy. Reply: the metadata's fields and values, empty
-- when there is none. With lru the time of the read is kept, at most once a minute.
-- Cost: O(log n).
local meta = redis.call('HGETALL', M..ARGV[1])
-- A full server refuses to count, and is read all the same.
redis.pcall('HINCRBY', STAT, #meta > 0 and 'hits' or 'misses', 1)
if #meta > 0 and ARGV[2] == 'lru' then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local last = redis.call('ZSCORE', USE, ARGV[1])
  if not last or now - last > 60000 then redis.pcall('ZADD', USE, string.format('%d', now), ARGV[1]) end
end
return meta
