-- Writes into an apalis-redis namespace what became of jobs, as its own handle_results.lua does.
-- Only of jobs that are in flight here: a repeat changes nothing, and what is told late covers no end.
--
-- KEYS[1] done set. ARGV: 1 dead set, 2 prefix of meta, 3 inflight set, 4 prefix of the bridge's
-- keys, then groups of id, status, result, attempts. Publishes on the channels of done and dead.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 5, #ARGV, 4 do
  local id, status = ARGV[i], ARGV[i + 1]
  local meta = ARGV[2] .. ':' .. id
  if status == 'Running' or status == 'Pending' then
    local is_open = redis.call('SISMEMBER', ARGV[3], id) == 1
    if is_open and redis.call('EXISTS', meta) == 1 then redis.pcall('HSET', meta, 'status', status) end
  elseif redis.call('SREM', ARGV[3], id) == 1 then
    local set = status == 'Done' and KEYS[1] or ARGV[1]
    redis.pcall('SADD', set, id)
    redis.pcall('HSET', meta, 'result', ARGV[i + 2], 'status', status, 'attempts', ARGV[i + 3], 'done_at', t[1])
    redis.call('PUBLISH', 'tasks:' .. set, id)
    redis.call('ZADD', ARGV[4] .. ':ended', now, id)
  end
end
