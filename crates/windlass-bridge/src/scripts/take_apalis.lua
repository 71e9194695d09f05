-- Takes jobs of an apalis-redis namespace: those that wait, and those of `scheduled` up to a year
-- ahead, with their time. They become members of the inflight set of a worker that never
-- registers, so that no stock worker takes them for abandoned.
--
-- KEYS[1] active list. ARGV: 5 scheduled, 6 data, 7 prefix of meta, 8 inflight set, 9 horizon (s),
-- 10 how long ended jobs are kept (ms), 11 done, 12 dead.
if most > 0 then
  for _, id in ipairs(redis.call('LPOP', KEYS[1], most) or {}) do
    redis.call('SADD', ARGV[8], id)
    take(id, '')
  end
  if taken < most then
    local due = redis.call('ZRANGEBYSCORE', ARGV[5], '-inf', t[1] + ARGV[9], 'WITHSCORES', 'LIMIT', 0, most - taken)
    for i = 1, #due, 2 do
      redis.call('ZREM', ARGV[5], due[i])
      redis.call('SADD', ARGV[8], due[i])
      take(due[i], due[i + 1])
    end
  end
end
waiting = redis.call('LLEN', KEYS[1]) + redis.call('ZCOUNT', ARGV[5], '-inf', t[1])
-- One job's wrong types must not stop the others.
local function plain(reply, n)
  return type(reply) == 'table' and not reply.err and #reply == n
end
more = function(id, row)
  local data = redis.pcall('HMGET', ARGV[6], id)
  row[4] = plain(data, 1) and data[1]
  local meta = redis.pcall('HMGET', ARGV[7] .. ':' .. id, 'attempts', 'max_attempts', 'traceparent')
  for i = 1, 3 do row[4 + i] = plain(meta, 3) and meta[i] end
end
local ended = ARGV[4] .. ':ended'
for _, id in ipairs(redis.call('ZRANGEBYSCORE', ended, '-inf', now - ARGV[10], 'LIMIT', 0, 100)) do
  redis.call('ZREM', ended, id)
  redis.call('HDEL', ARGV[6], id)
  redis.call('UNLINK', ARGV[7] .. ':' .. id)
  redis.pcall('SREM', ARGV[11], id)
  redis.pcall('SREM', ARGV[12], id)
end
