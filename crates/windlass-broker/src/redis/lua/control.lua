-- What an operator does to a queue, and the tidying a worker does for it.
--
-- KEYS[1]  the queue's meta key
-- ARGV     wake channel prefix, a verb, and its words:
--            pause '1' or '0'              → OK; a resume wakes one idle worker
--            max_waiting n or ''           → OK
--            limits field, value ...       → sets all limits anew; 1 when `again` has more to do
--            again                         → the same for lanes left over
--            replay ulid ... (at most 500) → '1' per job taken out of the dead set, else '0'
--            delete ulid ... (at most 8)   → '1' per terminal job forgotten, else '0'
--            tidy success ms, failure ms   → how many were forgotten (at most 250 of each list)
--            unpark after, kind ...        → {how many came back, last id looked at or ''}; looks
--                                            at 500 parked jobs behind the id `after`
-- Cost     O(ids named or looked at); a deleted success is searched for in its list, O(100,000)
--          or about 1 ms
local wrong = check_format(call('HGET', KEYS[1], 'format'))
if wrong then return wrong end
local prefix, verb = ARGV[1], ARGV[2]

local function join(ulid, key)
  push_waiting('LPUSH', ulid, key, call('HGET', key, 'priority') or nil)
end

local verbs = {}

function verbs.pause()
  if ARGV[3] == '1' then
    call('HSET', KEYS[1], 'paused', 1)
  else
    call('HDEL', KEYS[1], 'paused')
    if call('EXISTS', WAIT[0], WAIT[1], WAIT[2]) > 0 or lanes_wait() then wake(prefix) end
  end
  return redis.status_reply('OK')
end

function verbs.max_waiting()
  if ARGV[3] == '' then
    call('HDEL', KEYS[1], 'max_waiting')
  else
    call('HSET', KEYS[1], 'max_waiting', ARGV[3])
  end
  return redis.status_reply('OK')
end

-- What waits for a limit looks again, up to 500 lanes. Answers whether there may be more.
local function look_again()
  local left = 500
  for _, park in ipairs(call('ZRANGEBYLEX', PARKS, '-', '+', 'LIMIT', 0, 500)) do
    if sub(park, 1, 1) ~= 'o' then
      local names = left > 0 and call('LPOP', P .. 'park:' .. park, left) or {}
      for _, name in ipairs(names) do use_lanes().use_moves().enter(name) end
      left = left - #names
      if call('EXISTS', P .. 'park:' .. park) == 0 then
        call('ZREM', PARKS, park)
        call('ZREM', RATED, sub(park, 2))
      elseif sub(park, 1, 1) == 'r' then
        call('ZADD', RATED, '0', sub(park, 2))
      end
    end
  end
  if call('EXISTS', WAIT[0], WAIT[1], WAIT[2]) > 0 or lanes_wait() then wake(prefix) end
  return left == 0 and 1 or 0
end

function verbs.limits()
  call('DEL', LIMITS)
  if #ARGV > 2 then
    call('HSET', LIMITS, unpack(ARGV, 3))
    use('special')
  end
  return look_again()
end

verbs.again = look_again

function verbs.replay()
  local replies, back = {}, {}
  for k = 3, #ARGV do
    local ulid = ARGV[k]
    local key = J .. ulid
    local h = redis.pcall('HMGET', key, 'state', 'run', 'attempt', 'reason', 'finished_at')
    if h.err or h[1] ~= 'failure' then
      replies[#replies + 1] = '0'
    else
      call('ZREM', DEAD, ulid)
      local attempt = (h[3] or 0) + (h[4] == 'poisoned' and 1 or 0)
      if h[2] and h[4] then note_attempt(ulid, h[2], attempt, h[5] or 0, h[4], nil, true) end
      call('HDEL', key, 'state', 'reason', 'finished_at', 'expires_at', 'attempt', 'progress', 'lost',
        'unknown_since', 'cancel')
      local epoch, rest = match(h[2] or '', '^(%d+) %d+ (.*)$')
      if epoch then call('HSET', key, 'run', epoch .. ' 0 ' .. rest) end
      join(ulid, key)
      replies[#replies + 1] = '1'
      back[#back + 1] = ulid
    end
  end
  if #back > 0 then wake(prefix) end
  changed(back)
  return table.concat(replies)
end

function verbs.delete()
  local replies, gone = {}, {}
  for k = 3, #ARGV do
    local ulid = ARGV[k]
    local state = redis.pcall('HGET', J .. ulid, 'state')
    if state == 'success' or state == 'failure' or state == 'cancelled' then
      if call('ZREM', DEAD, ulid) == 0 then call('LREM', DONE, 1, ulid) end
      forget({ulid})
      replies[#replies + 1] = '1'
      gone[#gone + 1] = ulid
    else
      replies[#replies + 1] = '0'
    end
  end
  changed(gone)
  return table.concat(replies)
end

function verbs.tidy()
  local t = call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  local ids = call('LRANGE', DONE, -250, -1)
  local old = {}
  for k = #ids, 1, -1 do
    -- An error where the job is damaged: it goes with its neighbours.
    local at = redis.pcall('HGET', J .. ids[k], 'finished_at')
    if type(at) == 'string' and now - at < tonumber(ARGV[3]) then break end
    old[#old + 1] = ids[k]
  end
  if #old > 0 then call('RPOP', DONE, #old) end
  forget(old)
  local dead = call('ZRANGEBYSCORE', DEAD, '-inf', now - ARGV[4], 'LIMIT', 0, 250)
  if #dead > 0 then call('ZREM', DEAD, unpack(dead)) end
  forget(dead)
  return #old + #dead
end

function verbs.unpark()
  local kinds, back, last = {}, {}, ''
  for k = 4, #ARGV do kinds[ARGV[k]] = true end
  local from = ARGV[3] == '' and '-' or '(' .. ARGV[3]
  for _, ulid in ipairs(call('ZRANGEBYLEX', PARKED, from, '+', 'LIMIT', 0, 500)) do
    last = ulid
    local key = J .. ulid
    -- An error where the job is damaged: it stays and is seen here.
    local kind = redis.pcall('HGET', key, 'kind')
    if not kind then
      call('ZREM', PARKED, ulid)
    elseif kinds[kind] then
      call('ZREM', PARKED, ulid)
      call('HDEL', key, 'unknown_since')
      join(ulid, key)
      back[#back + 1] = ulid
    end
  end
  if #back > 0 then wake(prefix) end
  return {#back, last}
end

local reply = verbs[verb]()
close_lanes()
return reply
