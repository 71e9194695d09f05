-- Moves the end of held leases.
--
-- KEYS[1]  the queue's meta key
-- ARGV     lease ms, then at most 500 leases '<ulid>:<epoch>'
-- Reply    '1' for each held lease, '0' for each that is not, as one string
-- Memory   first write a ZREM, so that renewals pass when Redis is full
-- Cost     TIME, ZMSCORE, ZREM, ZADD
local t = redis.call('TIME')
local deadline = t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[1]
local score = redis.call('ZMSCORE', LEASE, unpack(ARGV, 2))
local held, acks = {}, {}
for k = 1, #ARGV - 1 do
  acks[k] = score[k] and '1' or '0'
  if score[k] then
    held[#held + 1] = deadline
    held[#held + 1] = ARGV[k + 1]
  end
end
if #held > 0 then
  redis.call('ZREM', LEASE, '')
  redis.call('ZADD', LEASE, 'XX', unpack(held))
end
return table.concat(acks)
