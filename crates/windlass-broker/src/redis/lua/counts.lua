-- How many jobs stand where.
--
-- KEYS[1]  the queue's meta key
-- Reply    pending, due, running, dead, then the counters enqueued, success, failure,
--          cancelled, retried, expired, retrying (or false)
-- Cost     7 reads, none of which depends on the number of jobs
local reply = {
  redis.call('LLEN', WAIT[0]) + redis.call('LLEN', WAIT[1]) + redis.call('LLEN', WAIT[2]),
  redis.call('ZCARD', DUE), redis.call('ZCARD', LEASE), redis.call('LLEN', DEAD),
}
for _, v in ipairs(redis.call('HMGET', STAT, 'enqueued', 'success', 'failure', 'cancelled', 'retried', 'expired', 'retrying')) do
  reply[#reply + 1] = v
end
return reply
