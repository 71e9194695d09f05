-- How jobs leave: shared by exchange, cancel, delete and tidy.

-- forget(ulids): takes these jobs' keys off, 4 per job.
local function forget(ulids)
  if #ulids == 0 then return end
  local old = {}
  for _, u in ipairs(ulids) do
    old[#old + 1], old[#old + 2] = J .. u, P .. 'a:' .. u
    old[#old + 1], old[#old + 2] = P .. 'r:' .. u, P .. 'e:' .. u
  end
  redis.call('UNLINK', unpack(old))
end

-- ended(ulids): those of ids taken off `done` that still are what the list said. Where jobs were
-- deleted by hand (meta.deleted), an id may have gone or been used anew.
local function ended(ulids, deleted)
  if not deleted then return ulids end
  local still = {}
  for _, u in ipairs(ulids) do
    local state = redis.call('HGET', J .. u, 'state')
    if state == 'success' or state == 'cancelled' then still[#still + 1] = u end
  end
  return still
end

-- push_done(ulids, keep, deleted) and push_dead(ulids, now, keep): the newest `keep` stay.
local function push_done(ulids, keep, deleted)
  if #ulids == 0 then return end
  local over = math.min(redis.call('LPUSH', DONE, unpack(ulids)) - keep, 500)
  if over > 0 then forget(ended(redis.call('RPOP', DONE, over), deleted)) end
end

local function push_dead(ulids, now, keep)
  if #ulids == 0 then return end
  local scored = {}
  for _, u in ipairs(ulids) do scored[#scored + 1], scored[#scored + 2] = now, u end
  redis.call('ZADD', DEAD, unpack(scored))
  local over = math.min(redis.call('ZCARD', DEAD) - keep, 500)
  if over > 0 then
    local old = redis.call('ZRANGE', DEAD, 0, over - 1)
    redis.call('ZREM', DEAD, unpack(old))
    forget(old)
  end
end
