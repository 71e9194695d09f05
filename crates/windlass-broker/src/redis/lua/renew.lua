-- Moves the end of held leases.
--
-- KEYS[1]  the queue's meta key
-- ARGV     lease ms, then at most 500 leases '<ulid>:<epoch>'
-- Reply    '1' for each held lease, '2' for each whose job is to be cancelled, '0' for each that
--          is not held, as one string
-- Memory   first write a ZREM, so that renewals pass when Redis is full
-- Cost     TIME, ZMSCORE, ZREM, ZADD, one HGET per lease
local t = call('TIME')
-- As text: a number handed to redis.call is printed as a float, once per lease.
local deadline = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[1])
local score = call('ZMSCORE', LEASE, unpack(ARGV, 2))
local held, acks = {}, {}
call('ZREM', LEASE, '')
for k = 1, #ARGV - 1 do
  local member = ARGV[k + 1]
  if score[k] then
    -- An error where the job is damaged: its run goes on, and its neighbours'.
    acks[k] = type(redis.pcall('HGET', J .. sub(member, 1, 26), 'cancel')) == 'string' and '2' or '1'
    held[#held + 1] = deadline
    held[#held + 1] = member
  else
    acks[k] = '0'
    prove_alive(member)
  end
end
if #held > 0 then call('ZADD', LEASE, 'XX', unpack(held)) end
return table.concat(acks)
