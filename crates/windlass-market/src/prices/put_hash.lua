-- Quotes of one symbol into its price and its ticks.
-- KEYS[1] the price, a hash. ARGV: the ticks, a stream; how long a price stands, ms; how long ticks
-- stand, ms; most ticks; the oldest to keep, ms; digits; the feed of the last one or nothing; then seq,
-- ts, bid, ask, volume of each quote.
-- Replies 1 when the price is of these quotes, 0 when a newer one stood. One step; O(quotes).
-- Numbers stay texts: Lua's own have 53 bits.
local function newer(a, b)
  return #a > #b or (#a == #b and a > b)
end
for i = 8, #ARGV, 5 do
  redis.call('XADD', ARGV[1], '*', 's', ARGV[i], 't', ARGV[i + 1], 'b', ARGV[i + 2], 'a', ARGV[i + 3], 'v', ARGV[i + 4])
end
redis.call('XTRIM', ARGV[1], 'MAXLEN', '~', ARGV[4])
redis.call('XTRIM', ARGV[1], 'MINID', '~', ARGV[5])
redis.call('PEXPIRE', ARGV[1], ARGV[3])
local last = #ARGV - 4
local stood = redis.call('HGET', KEYS[1], 'seq')
if stood and not newer(ARGV[last], stood) then
  return 0
end
redis.call('HSET', KEYS[1], 'seq', ARGV[last], 'ts', ARGV[last + 1], 'bid', ARGV[last + 2], 'ask', ARGV[last + 3],
  'v', ARGV[last + 4], 'digits', ARGV[6])
if ARGV[7] == '' then
  redis.call('HDEL', KEYS[1], 'src')
else
  redis.call('HSET', KEYS[1], 'src', ARGV[7])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
