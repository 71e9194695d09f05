-- Accepts up to 250 jobs, all or none.
--
-- KEYS[1]  the queue's meta key
-- ARGV     wake channel prefix, check ('1': some id stands twice), number of jobs, then per job:
--          ulid, priority 0-2, when ('' now | '+ms' after now | 'ms' instant), args ('' when they
--          lie in the hash), number n of hash words, and n words field, value, ...
-- Reply    '1' for each job accepted, '0' for each known id, as one string
-- Atomic   the whole batch; the first write is one that Redis refuses when it is out of memory,
--          so that then nothing has changed
-- Cost     per batch TIME, EXISTS, LPUSH, HINCRBY, EXISTS; per job one HSET
local count = tonumber(ARGV[3])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local at, keys = {}, {}
local i = 4
for k = 1, count do
  at[k], keys[k] = i, J .. ARGV[i]
  i = i + 5 + ARGV[i + 4]
end
local ask = ARGV[2] == '1' or redis.call('EXISTS', unpack(keys)) > 0

local fresh, lists, accepted = {}, {[0] = {}, {}, {}}, 0
for k = 1, count do
  local key = keys[k]
  if ask and redis.call('EXISTS', key) == 1 then
    fresh[k] = '0'
  else
    fresh[k] = '1'
    accepted = accepted + 1
    local a = at[k]
    local ulid, when, args, n = ARGV[a], ARGV[a + 2], ARGV[a + 3], tonumber(ARGV[a + 4])
    redis.call('HSET', key, 'created_at', now, unpack(ARGV, a + 5, a + 4 + n))
    if args ~= '' then redis.call('SET', P .. 'a:' .. ulid, args) end
    local run_at = now
    if when ~= '' then
      run_at = tonumber(when)
      if string.sub(when, 1, 1) == '+' then run_at = now + run_at end
    end
    if run_at > now then
      redis.call('HSET', key, 'state', 'scheduled', 'run_at', run_at)
      redis.call('ZADD', DUE, run_at, ulid)
    else
      local list = lists[tonumber(ARGV[a + 1])]
      list[#list + 1] = ulid
    end
  end
end
for p = 0, 2 do
  if #lists[p] > 0 then redis.call('LPUSH', WAIT[p], unpack(lists[p])) end
end
if accepted > 0 then
  redis.call('HINCRBY', STAT, 'enqueued', accepted)
  if redis.call('EXISTS', IDLE) == 1 then wake(ARGV[1]) end
end
return table.concat(fresh)
