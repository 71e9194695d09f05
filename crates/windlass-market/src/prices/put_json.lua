-- Quotes of one symbol into its price and its ticks, as the replaced system wrote them.
-- KEYS[1] the price, a string. ARGV: the ticks, a sorted set by epoch seconds; how long a price stands,
-- ms; how long ticks stand, ms; most ticks; the oldest to keep, s; the price; its seq; then score and
-- text of each tick. Replies 1 when the price is of these quotes, 0 when a newer one stood. One step;
-- O(quotes log ticks).
local function newer(a, b)
  return #a > #b or (#a == #b and a > b)
end
for i = 8, #ARGV, 2 do
  redis.call('ZADD', ARGV[1], ARGV[i], ARGV[i + 1])
end
redis.call('ZREMRANGEBYRANK', ARGV[1], 0, -1 - tonumber(ARGV[4]))
redis.call('ZREMRANGEBYSCORE', ARGV[1], '-inf', '(' .. ARGV[5])
redis.call('PEXPIRE', ARGV[1], ARGV[3])
local stood = redis.call('GET', KEYS[1])
local seq = stood and string.match(stood, '"seq":(%d+)')
if seq and not newer(ARGV[7], seq) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[6], 'PX', ARGV[2])
return 1
