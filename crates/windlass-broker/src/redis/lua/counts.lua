-- How many jobs stand where.
--
-- KEYS[1]  the queue's meta key
-- Reply    pending, due, running, dead, parked, paused ('1' or false), max waiting (or false),
--          blocked, then the counters enqueued, success, failure, cancelled, retried, expired, retrying
-- Cost     11 reads, none of which depends on the number of jobs
local waiting = call('LLEN', WAIT[0]) + call('LLEN', WAIT[1]) + call('LLEN', WAIT[2])
local meta = call('HMGET', KEYS[1], 'paused', 'max_waiting')
local reply = {
  waiting - (call('HGET', STAT, 'ghosts') or 0) + (call('HGET', STAT, 'laned') or 0),
  call('ZCARD', DUE), call('ZCARD', LEASE), call('ZCARD', DEAD), call('ZCARD', PARKED),
  meta[1], meta[2], call('ZCARD', P .. 'blocked'),
}
for i, v in ipairs(call('HMGET', STAT, 'enqueued', 'success', 'failure', 'cancelled', 'retried', 'expired', 'retrying')) do
  reply[8 + i] = v
end
return reply
