-- Lanes: whose turn it is. `windlass_jobs::lanes` in Lua, on keys; see there what each function
-- means. A lane's name is '<priority>\t<tenant>\t<ordering>\t<concurrency>\t<rate key>'.
--
-- The right end of a ring is next; a lane that is looked at stands at its left end again. What is
-- read of limits, counters and owners is kept for the length of the script; close_lanes() writes
-- counters back. Cost per lane looked at: LMOVE (two with a tenant) and RPOP, and what its keys
-- cost: HGET, HSET per ordering key, one of each per concurrency or rate key and script.
local LANES, TENANTS, PARKS, RATED = P .. 'lanes', P .. 'tenants', P .. 'parks', P .. 'rated'
local ORDERS, CONC, LIMITS = P .. 'orders', P .. 'conc', P .. 'limits'
local lane_now, laned, any_parked = 0, 0, nil
local parsed, owners, running, tats, conc_limits, rates = {}, {}, {}, {}, {}, {}

local function lane_of(name)
  local lane = parsed[name]
  if not lane then
    local p, t, o, c, r = string.match(name, '^(%d)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)$')
    lane = {p = p, t = t, o = o, c = c, r = r, ring = P .. 'ring' .. p, own = P .. 'ring' .. p, list = P .. 'l:' .. name}
    if t ~= '' then lane.own = P .. 't:' .. p .. '\t' .. t end
    parsed[name] = lane
  end
  return lane
end

-- The lane of a job whose `priority` field ends in 'l'; nil for any other.
local function lane_name(key, priority)
  if not priority or string.sub(priority, -1) ~= 'l' then return end
  local h = redis.call('HMGET', key, 'tenant', 'order', 'conc', 'rate')
  return string.sub(priority, 1, 1) .. '\t' .. (h[1] or '') .. '\t' .. (h[2] or '') .. '\t' .. (h[3] or '') .. '\t' .. (h[4] or '')
end

local function owner(key)
  local ulid = owners[key]
  if ulid == nil then
    ulid = redis.call('HGET', ORDERS, key)
    owners[key] = ulid
  end
  return ulid
end

local function running_of(key)
  local r = running[key]
  if not r then
    r = {n = tonumber(redis.call('HGET', CONC, key) or 0)}
    running[key] = r
  end
  return r
end

local function conc_limit(key)
  local limit = conc_limits[key]
  if limit == nil then
    local h = redis.call('HMGET', LIMITS, 'c:' .. key, 'c')
    limit = tonumber(h[1] or h[2] or nil) or false
    conc_limits[key] = limit
  end
  return limit
end

-- The queue's own rate has key ''.
local function rate_of(key)
  local rate = rates[key]
  if rate == nil then
    local h = redis.call('HMGET', LIMITS, 'r:' .. key, key == '' and 'r:' or 'r')
    local interval, burst = string.match(h[1] or h[2] or '', '^(%d+) (%d+) ')
    rate = interval and {i = tonumber(interval), b = tonumber(burst)} or false
    rates[key] = rate
  end
  return rate
end

-- When all starts so far are paid for, in µs.
local function tat_of(key)
  local tat = tats[key]
  if not tat then
    tat = {us = tonumber(redis.call('GET', P .. 'tat:' .. key) or 0)}
    tats[key] = tat
  end
  return tat
end

local function rate_room(rate, key)
  local now_us = lane_now * 1000
  local left = rate.b * rate.i - (math.max(tat_of(key).us, now_us) - now_us)
  return math.max(math.floor(left / rate.i), 0)
end

local function rate_take(rate, key, n)
  local tat = tat_of(key)
  tat.us = math.max(tat.us, lane_now * 1000) + n * rate.i
  tat.dirty = true
end

local function rate_next(rate, key)
  return math.ceil((tat_of(key).us - (rate.b - 1) * rate.i) / 1000)
end

local function room_at(kind, key)
  if kind == 'o' then return owner(key) and 0 or 1 end
  if kind == 'c' then
    local limit = conc_limit(key)
    return limit and math.max(limit - running_of(key).n, 0) or 100
  end
  local rate = rate_of(key)
  return rate and rate_room(rate, key) or 100
end

local function enter(name)
  local lane = lane_of(name)
  if lane.t ~= '' and redis.call('SADD', TENANTS, lane.p .. '\t' .. lane.t) == 1 then
    redis.call('LPUSH', lane.ring, 't' .. lane.t)
  end
  redis.call('LPUSH', lane.own, name)
end

local function set_timer(key)
  local rate = rate_of(key)
  redis.call('ZADD', RATED, rate and string.format('%.0f', rate_next(rate, key)) or '0', key)
end

local function bring(kind, key)
  if any_parked == nil then any_parked = redis.call('EXISTS', PARKS) == 1 end
  if not any_parked then return end
  local park, n = P .. 'park:' .. kind .. key, math.min(room_at(kind, key), 100)
  local names = n > 0 and redis.call('LPOP', park, n)
  for _, name in ipairs(names or {}) do enter(name) end
  if redis.call('EXISTS', park) == 1 then
    if kind == 'r' then set_timer(key) end
  elseif names then
    redis.call('ZREM', PARKS, kind .. key)
    if kind == 'r' then redis.call('ZREM', RATED, key) end
  end
end

local function pass_on(name, except)
  local lane = lane_of(name)
  if except ~= 'o' and lane.o ~= '' then bring('o', lane.o) end
  if except ~= 'c' and lane.c ~= '' then bring('c', lane.c) end
  if except ~= 'r' and lane.r ~= '' then bring('r', lane.r) end
end

local function join_lane(name)
  if redis.call('ZADD', LANES, 'NX', '0', name) == 1 then enter(name) end
end

local function return_to(name, ulid)
  if redis.call('ZADD', LANES, 'NX', '0', name) == 1 then return enter(name) end
  local lane = lane_of(name)
  if lane.o ~= '' and owner(lane.o) == ulid then
    local park = P .. 'park:o' .. lane.o
    if redis.call('LREM', park, 1, name) == 1 then
      if redis.call('EXISTS', park) == 0 then redis.call('ZREM', PARKS, 'o' .. lane.o) end
      enter(name)
    end
  end
end

-- Puts a job behind or before all that wait with it.
local function wait_last(ulid, key, priority)
  local name = lane_name(key, priority)
  if not name then
    redis.call('LPUSH', WAIT[tonumber(priority or 1)] or WAIT[1], ulid)
    return
  end
  laned = laned + 1
  local lane = lane_of(name)
  if lane.o ~= '' and owner(lane.o) == ulid then
    redis.call('RPUSH', lane.list, ulid)
    return_to(name, ulid)
  else
    redis.call('LPUSH', lane.list, ulid)
    join_lane(name)
  end
end

local function wait_first(ulid, key, priority)
  local name = lane_name(key, priority)
  if not name then
    redis.call('RPUSH', WAIT[tonumber(priority or 1)] or WAIT[1], ulid)
    return
  end
  laned = laned + 1
  redis.call('RPUSH', lane_of(name).list, ulid)
  return_to(name, ulid)
end

-- The next lane of a ring, or nil and whether a tenant has left it.
local function visit(p)
  local ring = P .. 'ring' .. p
  local entry = redis.call('LMOVE', ring, ring, 'RIGHT', 'LEFT')
  if not entry then return nil, false end
  if string.byte(entry) ~= 116 then return entry end
  local tenant = p .. '\t' .. string.sub(entry, 2)
  local own = P .. 't:' .. tenant
  local name = redis.call('LMOVE', own, own, 'RIGHT', 'LEFT')
  if name then return name end
  redis.call('LPOP', ring)
  redis.call('SREM', TENANTS, tenant)
  return nil, true
end

local function leave_lane(name)
  redis.call('LPOP', lane_of(name).own)
  redis.call('ZREM', LANES, name)
  pass_on(name, '')
end

-- Takes what the start of this job needs; false, and the lane is parked, when it has to wait.
local function start_in(name, ulid)
  local lane = lane_of(name)
  local kind, key
  local holder = lane.o ~= '' and owner(lane.o)
  if holder and holder ~= ulid then
    kind, key = 'o', lane.o
  elseif lane.c ~= '' and room_at('c', lane.c) == 0 then
    kind, key = 'c', lane.c
  elseif lane.r ~= '' and room_at('r', lane.r) == 0 then
    kind, key = 'r', lane.r
  end
  if kind then
    redis.call('LPOP', lane.own)
    if redis.call('RPUSH', P .. 'park:' .. kind .. key, name) == 1 then redis.call('ZADD', PARKS, '0', kind .. key) end
    any_parked = true
    if kind == 'r' then set_timer(key) end
    pass_on(name, kind)
    return false
  end
  if lane.o ~= '' and holder ~= ulid then
    owners[lane.o] = ulid
    redis.call('HSET', ORDERS, lane.o, ulid)
  end
  if lane.c ~= '' then
    local r = running_of(lane.c)
    r.n, r.dirty = r.n + 1, true
  end
  local rate = lane.r ~= '' and rate_of(lane.r)
  if rate then rate_take(rate, lane.r, 1) end
  return true
end

local function let_order_go(name, ulid)
  local lane = lane_of(name)
  if lane.o ~= '' and owner(lane.o) == ulid then
    owners[lane.o] = false
    redis.call('HDEL', ORDERS, lane.o)
    bring('o', lane.o)
  end
end

-- A run has ended; with `again` the job keeps its ordering key.
local function run_ended(name, ulid, again)
  local lane = lane_of(name)
  if lane.c ~= '' then
    local r = running_of(lane.c)
    r.n, r.dirty = math.max(r.n - 1, 0), true
    bring('c', lane.c)
  end
  if not again then let_order_go(name, ulid) end
end

-- Lanes whose rate allows it go on.
local function wake_lanes()
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', RATED, '-inf', string.format('%.0f', lane_now), 'LIMIT', 0, 100)) do
    redis.call('ZREM', RATED, key)
    bring('r', key)
  end
end

local function close_lanes()
  for key, r in pairs(running) do
    if r.dirty then
      if r.n > 0 then redis.call('HSET', CONC, key, string.format('%.0f', r.n)) else redis.call('HDEL', CONC, key) end
    end
  end
  for key, tat in pairs(tats) do
    if tat.dirty then
      local px = math.max(math.ceil(tat.us / 1000) - lane_now, 0) + 1000
      redis.call('SET', P .. 'tat:' .. key, string.format('%.0f', tat.us), 'PX', string.format('%.0f', px))
    end
  end
  if laned ~= 0 then redis.call('HINCRBY', STAT, 'laned', string.format('%.0f', laned)) end
end

local function lanes_wait()
  return redis.call('EXISTS', P .. 'ring0', P .. 'ring1', P .. 'ring2') > 0
end
