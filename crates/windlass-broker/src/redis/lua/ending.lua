-- How jobs leave: shared by exchange, cancel, delete and tidy.

-- forget_ghost(ulid): the id of a forgotten job does not stand in a list any more.
local function forget_ghost(ulid)
  call('SREM', GONE, ulid)
  call('HDEL', P .. 'gonelanes', ulid)
end

-- forget(ulids): takes these jobs' keys off, 4 per job, 7 in a queue where some wait for others. An id that still stands in a waiting list
-- is remembered in `gone` until a claim passes over it, or the id is used anew.
local function forget(ulids)
  if #ulids == 0 then return end
  if tonumber(call('HGET', STAT, 'ghosts') or 0) > 0 then
    for _, u in ipairs(ulids) do
      local ghost = redis.pcall('HGET', J .. u, 'ghost')
      if type(ghost) == 'string' then
        call('SADD', GONE, u)
        local lane = lane_name(J .. u, ghost)
        if lane then call('HSET', P .. 'gonelanes', u, lane) end
      end
    end
  end
  local old = {}
  for _, u in ipairs(ulids) do
    old[#old + 1], old[#old + 2] = J .. u, P .. 'a:' .. u
    old[#old + 1], old[#old + 2] = P .. 'r:' .. u, P .. 'e:' .. u
  end
  call('UNLINK', unpack(old))
  if call('HGET', KEYS[1], 'flows') then
    local ties = {}
    for _, u in ipairs(ulids) do
      ties[#ties + 1], ties[#ties + 2], ties[#ties + 3] = P .. 'w:' .. u, P .. 'g:' .. u, P .. 'd:' .. u
    end
    call('UNLINK', unpack(ties))
    call('SREM', P .. 'parents', unpack(ulids))
  end
end

-- push_done(ulids, keep) and push_dead(ulids, now, keep): the newest `keep` stay.
local function push_done(ulids, keep)
  if #ulids == 0 then return end
  local over = math.min(call('LPUSH', DONE, unpack(ulids)) - keep, 500)
  if over > 0 then forget(call('RPOP', DONE, over)) end
end

local function push_dead(ulids, now, keep)
  if #ulids == 0 then return end
  local scored = {}
  for _, u in ipairs(ulids) do scored[#scored + 1], scored[#scored + 2] = now, u end
  call('ZADD', DEAD, unpack(scored))
  local over = math.min(call('ZCARD', DEAD) - keep, 500)
  if over > 0 then
    local old = call('ZRANGE', DEAD, 0, over - 1)
    call('ZREM', DEAD, unpack(old))
    forget(old)
  end
end
