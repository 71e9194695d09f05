-- Lanes that come and go: into a ring, out of it, parked and back. The body of make_moves(), see waiting.lua and
-- lanes.lua.
local parsed = {}

-- True for a lane with a tenant and nothing else: its jobs wait for nothing but their turn.
local function is_free(name)
  local a, b, c = byte(name, -3, -1)
  return a == 9 and b == 9 and c == 9
end

local function lane_of(name)
  local lane = parsed[name]
  if not lane then
    local p, t, o, c, r = match(name, '^(%d)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)$')
    lane = {p = p, t = t, o = o, c = c, r = r}
    parsed[name] = lane
  end
  return lane
end

local function lanes_of(lane)
  return P .. 't:' .. lane.p .. '\t' .. lane.t
end

local function room_at(kind, key)
  if kind == 'o' then return owner(key) and 0 or 1 end
  if kind == 'c' then
    local limit = conc_limit(key)
    return limit and math.max(limit - running_of(key), 0) or 100
  end
  return use_rates().room(key)
end

local function join_ring(p, entry)
  if ring_p == p then
    n_back = n_back + 1
    ring_back[n_back] = entry
  else
    call('LPUSH', RINGS[p], entry)
  end
end

local function enter(name)
  local lane = lane_of(name)
  if lane.t == '' then return join_ring(lane.p, name) end
  if alone ~= false and not is_free(name) then
    alone = false
    call('HDEL', KEYS[1], 'alone')
  end
  if call('SADD', TENANTS, lane.p .. '\t' .. lane.t) == 1 then join_ring(lane.p, 't' .. lane.t) end
  call('LPUSH', lanes_of(lane), name)
end
here.enter = enter

-- Takes the lane just looked at out of its ring, at whose left end it stands.
local function leave_ring(lane)
  if lane.t ~= '' then return call('LPOP', lanes_of(lane)) end
  ring_back[n_back] = nil
  n_back = n_back - 1
end

local function set_timer(key)
  local at = use_rates().next(key)
  call('ZADD', RATED, at and string.format('%.0f', at) or '0', key)
end

-- Lanes that wait for the key go on, as far as it has room. Somebody waits for some key.
function here.bring(kind, key)
  local park, n = P .. 'park:' .. kind .. key, math.min(room_at(kind, key), 100)
  local names = n > 0 and call('LPOP', park, n)
  for _, name in ipairs(names or {}) do enter(name) end
  if call('EXISTS', park) == 1 then
    if kind == 'r' then set_timer(key) end
  elseif names then
    call('ZREM', PARKS, kind .. key)
    if kind == 'r' then call('ZREM', RATED, key) end
  end
end

local function pass_on(name, except)
  local lane = lane_of(name)
  if except ~= 'o' and lane.o ~= '' then bring('o', lane.o) end
  if except ~= 'c' and lane.c ~= '' then bring('c', lane.c) end
  if except ~= 'r' and lane.r ~= '' then bring('r', lane.r) end
end

local function join_lane(name)
  if call('ZADD', LANES, 'NX', '0', name) == 1 then enter(name) end
end

local function return_to(name, ulid)
  if call('ZADD', LANES, 'NX', '0', name) == 1 then return enter(name) end
  local lane = lane_of(name)
  if lane.o ~= '' and owner(lane.o) == ulid then
    local park = P .. 'park:o' .. lane.o
    if call('LREM', park, 1, name) == 1 then
      if call('EXISTS', park) == 0 then call('ZREM', PARKS, 'o' .. lane.o) end
      enter(name)
    end
  end
end

-- Puts a job at a side of its lane: LPUSH behind all others, RPUSH before them. The one that owns the ordering key is
-- always before them.
function here.push(side, name, ulid)
  local lane = lane_of(name)
  local owns = side == 'LPUSH' and lane.o ~= '' and owner(lane.o) == ulid
  call(owns and 'RPUSH' or side, LANE_JOBS .. name, ulid)
  if owns or side == 'RPUSH' then return_to(name, ulid) else join_lane(name) end
end

-- The lane just looked at has no job.
function here.leave(name)
  leave_ring(lane_of(name))
  call('ZREM', LANES, name)
  pass_on(name, '')
end

-- Parks the lane just looked at until a key of it has room.
function here.park(name, kind, key)
  leave_ring(lane_of(name))
  if call('RPUSH', P .. 'park:' .. kind .. key, name) == 1 then call('ZADD', PARKS, '0', kind .. key) end
  any_parked = true
  if kind == 'r' then set_timer(key) end
  pass_on(name, kind)
  return false
end

function here.let_order_go(name, ulid)
  local lane = lane_of(name)
  if lane.o ~= '' and owner(lane.o) == ulid then disown(lane.o) end
end

-- A job that ran is not there to say what it held: what the others hold is found anew. Cost: a read per running
-- job and per ordering key that is owned, which only such damage is worth.
function here.count_anew()
  local counts = {}
  for _, member in ipairs(call('ZRANGE', LEASE, 0, -1)) do
    local c = redis.pcall('HGET', J .. sub(member, 1, 26), 'conc')
    if type(c) == 'string' then counts[c] = (counts[c] or 0) + 1 end
  end
  for _, c in ipairs(call('HKEYS', CONC)) do
    if c ~= '' and running_of(c) ~= (counts[c] or 0) then
      running[c] = counts[c] or 0
      bring('c', c)
    end
  end
  for _, o in ipairs(call('HKEYS', ORDERS)) do
    local ulid = o ~= '' and owner(o)
    local kind = ulid and redis.pcall('HGET', J .. ulid, 'kind')
    if ulid and type(kind) ~= 'string' then disown(o) end
  end
end

-- Lanes of these keys go on, as their rate allows it.
function here.wake(keys)
  for _, key in ipairs(keys) do
    call('ZREM', RATED, key)
    bring('r', key)
  end
end
