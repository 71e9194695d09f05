-- Finishes, reaps, promotes and claims, in this order, in one step.
--
-- KEYS[1]  the queue's meta key
-- ARGV     1 wake channel prefix, 2 worker ('' = claim nothing, do not reap or promote),
--          3 jobs wanted 0-128, 4 lease ms, 5 deliveries at which a job is poisoned,
--          6 terminal jobs kept per list, 7 number of finishes (at most 128), then per finish the
--          lease '<ulid>:<epoch>', a verb and its words:
--            s (success)             r result            k result ('' none), skipped
--            f reason, failures, error                   t delay ms, failures, error (retry)
--            z delay ms (snooze)     c error (cancelled) b (back: released)
-- Reply    now, acks ('1' taken, '0' stale, one string), next due ms or '', next lease end ms or
--          '', then 8 values per claimed job: ulid, epoch, deliveries, kind, args, failures,
--          max attempts, options
-- Atomic   everything; each finish is fenced by its own lease and refused alone
-- Memory   the first write is a ZREM, which Redis never refuses for memory: acks pass when full
-- Cost     per batch TIME, 2 ZRANGEBYSCORE, ZMSCORE, ZREM, LPUSH, HINCRBY, RPOP, ZADD, EXISTS;
--          per job HSET at finish, HMGET + HSET at claim; at most 100 reaped and 100 promoted
local prefix, worker, want, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local poison, keep, nf = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local front, put_off = {}, false
local done, dead, add = {}, {}, {}

local function count(field, by)
  add[field] = (add[field] or 0) + by
end

-- 'epoch deliveries started worker' with the delivery taken back: the run ended in order.
local function uncounted(key)
  local run = redis.call('HGET', key, 'run') or ''
  local epoch, deliveries, rest = string.match(run, '^(%d+) (%d+) (.*)$')
  if epoch then redis.call('HSET', key, 'run', epoch .. ' ' .. (deliveries - 1) .. ' ' .. rest) end
end

local function put_off_until(ulid, key, at, state)
  uncounted(key)
  redis.call('HSET', key, 'state', state, 'run_at', at)
  redis.call('HDEL', key, 'progress')
  redis.call('ZADD', DUE, at, ulid)
  put_off = true
end

local function bury(ulid, key, reason, err)
  redis.call('HSET', key, 'state', 'failure', 'reason', reason, 'finished_at', now)
  redis.call('SET', P .. 'e:' .. ulid, err)
  dead[#dead + 1] = ulid
  count('failure', 1)
end

-- Terminal with a result, or cancelled; returns nothing the hot path waits for.
local function finish_done(ulid, key, state, skipped)
  if skipped == '1' then
    redis.call('HSET', key, 'state', state, 'finished_at', now, 'skipped', 1)
  else
    redis.call('HSET', key, 'state', state, 'finished_at', now)
  end
  done[#done + 1] = ulid
  count(state, 1)
end

local words = {s = 0, r = 1, k = 2, f = 3, t = 3, z = 1, c = 1, b = 0}
local settle = {
  s = function(u, key) finish_done(u, key, 'success') end,
  r = function(u, key, w)
    redis.call('SET', P .. 'r:' .. u, ARGV[w])
    finish_done(u, key, 'success')
  end,
  k = function(u, key, w)
    if ARGV[w] ~= '' then redis.call('SET', P .. 'r:' .. u, ARGV[w]) end
    finish_done(u, key, 'success', ARGV[w + 1])
  end,
  f = function(u, key, w)
    redis.call('HSET', key, 'attempt', ARGV[w + 1])
    bury(u, key, ARGV[w], ARGV[w + 2])
  end,
  t = function(u, key, w)
    redis.call('HSET', key, 'attempt', ARGV[w + 1])
    redis.call('SET', P .. 'e:' .. u, ARGV[w + 2])
    put_off_until(u, key, now + ARGV[w], 'retrying')
    count('retried', 1)
    count('retrying', 1)
  end,
  z = function(u, key, w) put_off_until(u, key, now + ARGV[w], 'scheduled') end,
  c = function(u, key, w)
    redis.call('SET', P .. 'e:' .. u, ARGV[w])
    finish_done(u, key, 'cancelled')
  end,
  b = function(u, key)
    uncounted(key)
    front[#front + 1] = u
  end,
}

local acks = {}
if nf > 0 then
  local member, verb, word = {}, {}, {}
  local i = 8
  for k = 1, nf do
    member[k], verb[k], word[k] = ARGV[i], ARGV[i + 1], i + 2
    i = i + 2 + words[ARGV[i + 1]]
  end
  local score = redis.call('ZMSCORE', LEASE, unpack(member))
  local live, seen = {}, {}
  for k = 1, nf do
    if score[k] and not seen[member[k]] then
      seen[member[k]] = true
      live[#live + 1] = member[k]
      acks[k] = '1'
    else
      acks[k] = '0'
    end
  end
  redis.call('ZREM', LEASE, '', unpack(live))
  for k = 1, nf do
    if acks[k] == '1' then
      local ulid = string.sub(member[k], 1, 26)
      settle[verb[k]](ulid, J .. ulid, word[k])
    end
  end
else
  redis.call('ZREM', LEASE, '')
end

if worker ~= '' then
  local expired = redis.call('ZRANGEBYSCORE', LEASE, '-inf', now, 'LIMIT', 0, 100)
  for _, member in ipairs(expired) do
    local ulid = string.sub(member, 1, 26)
    local key = J .. ulid
    redis.call('ZREM', LEASE, member)
    count('expired', 1)
    local run = redis.call('HGET', key, 'run')
    if run then
      local deliveries, who = string.match(run, '^%d+ (%d+) %d+ (.*)$')
      if tonumber(deliveries or 0) >= poison then
        local text = 'its lease expired ' .. deliveries .. ' times, last with worker ' .. who
        bury(ulid, key, 'poisoned', '{"code":"poisoned","message":"' .. text .. '"}')
      else
        front[#front + 1] = ulid
      end
    end
  end
end

for k = #front, 1, -1 do
  local key = J .. front[k]
  local priority = tonumber(redis.call('HGET', key, 'priority') or 1)
  redis.call('HDEL', key, 'state', 'progress')
  redis.call('RPUSH', WAIT[priority] or WAIT[1], front[k])
end

if worker ~= '' then
  local due = redis.call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, 100)
  for _, ulid in ipairs(due) do
    local key = J .. ulid
    redis.call('ZREM', DUE, ulid)
    local h = redis.call('HMGET', key, 'priority', 'state')
    if h[2] then
      if h[2] == 'retrying' then count('retrying', -1) end
      redis.call('HDEL', key, 'state', 'run_at')
      redis.call('LPUSH', WAIT[tonumber(h[1] or 1)] or WAIT[1], ulid)
    end
  end
end

-- Claim. A damaged record (not a hash, no kind) is handed over with kind '' or buried: it must
-- never stop its neighbours.
local reply, leases, got = {now, '', '', ''}, {}, 0
local deadline = now + lease_ms
local function claim(ulid)
  local key = J .. ulid
  local h = redis.pcall('HMGET', key, 'kind', 'run', 'args', 'args.1', 'args.2', 'args.3', 'attempt', 'max_attempts', 'opts')
  if h.err then
    dead[#dead + 1] = ulid
    count('failure', 1)
    return
  end
  if not h[1] and redis.call('EXISTS', key) == 0 then return end
  local epoch, deliveries = 1, 1
  if h[2] then
    local e, d = string.match(h[2], '^(%d+) (%d+) ')
    epoch, deliveries = (e or 0) + 1, (d or 0) + 1
  end
  redis.call('HSET', key, 'state', 'running', 'run', epoch .. ' ' .. deliveries .. ' ' .. now .. ' ' .. worker)
  leases[#leases + 1] = deadline
  leases[#leases + 1] = ulid .. ':' .. epoch
  local args = h[3]
  if not args then
    args = redis.call('GET', P .. 'a:' .. ulid) or ''
  elseif h[4] then
    args = args .. h[4] .. (h[5] or '') .. (h[6] or '')
  end
  local opts = h[9] or ''
  if #opts == 64 then opts = opts .. (redis.call('HGET', key, 'opts.1') or '') end
  local n = 5 + got * 8
  reply[n], reply[n + 1], reply[n + 2], reply[n + 3] = ulid, epoch, deliveries, h[1] or ''
  reply[n + 4], reply[n + 5], reply[n + 6], reply[n + 7] = args, h[7] or '0', h[8] or '', opts
  got = got + 1
end
for p = 0, 2 do
  while got < want do
    local ids = redis.call('RPOP', WAIT[p], want - got)
    if not ids then break end
    for _, ulid in ipairs(ids) do claim(ulid) end
  end
end
if got > 0 then redis.call('ZADD', LEASE, unpack(leases)) end

if #done > 0 then
  local over = math.min(redis.call('LPUSH', DONE, unpack(done)) - keep, 500)
  if over > 0 then
    local old = {}
    for _, u in ipairs(redis.call('RPOP', DONE, over)) do
      old[#old + 1], old[#old + 2] = J .. u, P .. 'a:' .. u
      old[#old + 1], old[#old + 2] = P .. 'r:' .. u, P .. 'e:' .. u
    end
    redis.call('UNLINK', unpack(old))
  end
end
if #dead > 0 then
  local over = math.min(redis.call('LPUSH', DEAD, unpack(dead)) - keep, 500)
  if over > 0 then
    local old = {}
    for _, u in ipairs(redis.call('RPOP', DEAD, over)) do
      old[#old + 1], old[#old + 2] = J .. u, P .. 'a:' .. u
      old[#old + 1], old[#old + 2] = P .. 'r:' .. u, P .. 'e:' .. u
    end
    redis.call('UNLINK', unpack(old))
  end
end
for field, by in pairs(add) do redis.call('HINCRBY', STAT, field, by) end

if worker ~= '' and got < want then
  redis.call('SADD', IDLE, worker)
  local due = redis.call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
  local lease = redis.call('ZRANGE', LEASE, 0, 0, 'WITHSCORES')
  reply[3], reply[4] = due[2] or '', lease[2] or ''
elseif redis.call('EXISTS', IDLE) == 1 then
  -- Jobs wait, or a due time was set or asked for that nobody idle may know.
  if put_off or redis.call('EXISTS', WAIT[0], WAIT[1], WAIT[2]) > 0
    or (worker ~= '' and want == 0 and redis.call('EXISTS', DUE) == 1) then
    wake(prefix)
  end
end
reply[2] = table.concat(acks)
return reply
