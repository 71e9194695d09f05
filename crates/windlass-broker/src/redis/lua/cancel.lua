-- Cancels a job: at once where it waits, by telling its worker where it runs.
--
-- KEYS[1]  the queue's meta key
-- ARGV     wake channel prefix, ulid, terminal jobs kept per list
-- Reply    'done', 'requested', 'unknown', or the state in which it had ended; the error
--          FORMAT
-- Memory   first write a ZREM, so that cancels pass when Redis is full
-- Cost     about 8 commands. A waiting job's id stays in its list as a ghost that a claim passes
--          over; stat.ghosts keeps the counts exact
local wrong = check_format(call('HGET', KEYS[1], 'format'))
if wrong then return wrong end
local key = J .. ARGV[2]
local flows = call('HGET', KEYS[1], 'flows')
local h = redis.pcall('HMGET', key, 'state', 'run', 'created_at', 'priority', 'opts', 'unique')
if h.err or not h[3] then return 'unknown' end
local state = h[1]
if state == 'success' or state == 'failure' or state == 'cancelled' then return state end
call('ZREM', LEASE, '')
if state == 'running' then
  local epoch, worker = match(h[2] or '', '^(%d+) %d+ %d+ (.*)$')
  call('HSET', key, 'cancel', 1)
  if epoch then call('PUBLISH', ARGV[1] .. worker, 'c:' .. QUEUE .. ':' .. ARGV[2] .. ':' .. epoch) end
  return 'requested'
end
if state == 'scheduled' or state == 'retrying' then
  call('ZREM', DUE, ARGV[2])
  if state == 'retrying' then call('HINCRBY', STAT, 'retrying', -1) end
elseif state == 'blocked' then
  call('ZREM', BLOCKED, ARGV[2])
  call('DEL', P .. 'g:' .. ARGV[2])
elseif call('ZREM', PARKED, ARGV[2]) == 0 then
  call('HSET', key, 'ghost', h[4] or 1)
  call('HINCRBY', STAT, 'ghosts', 1)
end
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if h[6] and ends_hold(h[5], '[sf]') then let_go(ARGV[2], h[6]) end
local lane = lane_name(key, h[4])
if lane then
  lane_now = now
  use_lanes().use_moves().let_order_go(lane, ARGV[2])
  close_lanes()
  if lanes_wait() and call('HGET', KEYS[1], 'paused') ~= '1' then wake(ARGV[1]) end
end
call('HDEL', key, 'run_at')
call('HSET', key, 'state', 'cancelled', 'finished_at', now)
set_error(ARGV[2], '@CANCELLED@')
call('HINCRBY', STAT, 'cancelled', 1)
-- The worker that is woken carries the news over.
if flows and tell({ARGV[2], 'c'}, string.format('%.0f', now)) then wake(ARGV[1]) end
push_done({ARGV[2]}, tonumber(ARGV[3]))
changed({ARGV[2]})
return 'done'
