-- Lanes: whose turn it is. `windlass_jobs::lanes` in Lua, on keys; see there what each function
-- means. A lane's name is '<priority>\t<tenant>\t<ordering>\t<concurrency>\t<rate key>'.
--
-- The right end of a ring is next; a lane that is looked at stands at its left end again. What is
-- read of limits, counters and owners is kept for the length of the script; close_lanes() writes
-- owners and counters back. Cost per lane looked at: RPOP, with a tenant LMOVE, GET, SET per rate
-- key and script; owners of ordering keys, counters of concurrency keys and rings are read and
-- written many at a time, but for lanes of a tenant with several (HGET per key). Where no tenant's
-- job ever had another key (meta.alone), a tenant has one lane, whose name is known: no LMOVE.
local LANES, TENANTS, PARKS, RATED = P .. 'lanes', P .. 'tenants', P .. 'parks', P .. 'rated'
local ORDERS, CONC, LIMITS = P .. 'orders', P .. 'conc', P .. 'limits'
local lane_now, laned, any_parked, limit_defaults, alone = 0, 0, nil, nil, nil
local parsed, owners, owned, tats, conc_limits, rates = {}, {}, {}, {}, {}, {}
-- How many jobs of a concurrency key run, and how many did before.
local running, ran = {}, {}
local RINGS = {['0'] = P .. 'ring0', ['1'] = P .. 'ring1', ['2'] = P .. 'ring2'}
-- The ring that is being gone through: its priority, entries taken off its right end with their
-- ordering, concurrency and rate keys ('' for none), how many of them were looked at, and what goes
-- back to its left end.
local ring_p, ring_taken, ring_at, ring_back = '', {}, 0, {}
local taken_o, taken_c, taken_r = {}, {}, {}

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

local function jobs_of(name)
  return P .. 'l:' .. name
end

local function lanes_of(lane)
  return P .. 't:' .. lane.p .. '\t' .. lane.t
end

-- The lane of a job whose `priority` field ends in 'l'; nil for any other.
local function lane_name(key, priority)
  if not priority or sub(priority, -1) ~= 'l' then return end
  local h = call('HMGET', key, 'tenant', 'order', 'conc', 'rate')
  return sub(priority, 1, 1) .. '\t' .. (h[1] or '') .. '\t' .. (h[2] or '') .. '\t' .. (h[3] or '') .. '\t' .. (h[4] or '')
end

local function owner(key)
  local ulid = owners[key]
  if ulid == nil then
    ulid = call('HGET', ORDERS, key)
    owners[key] = ulid
  end
  return ulid
end

local function running_of(key)
  local n = running[key]
  if not n then
    n = tonumber(call('HGET', CONC, key) or 0)
    running[key], ran[key] = n, n
  end
  return n
end

-- Reads how many jobs of these concurrency keys run, in one call.
local function read_running(keys)
  if #keys == 0 then return end
  local counts = call('HMGET', CONC, unpack(keys))
  for k = 1, #keys do
    local n = counts[k] and tonumber(counts[k]) or 0
    running[keys[k]], ran[keys[k]] = n, n
  end
end

-- Reads who owns these ordering keys, in one call.
local function read_owners(keys)
  if #keys == 0 then return end
  local ulids = call('HMGET', ORDERS, unpack(keys))
  for k = 1, #keys do owners[keys[k]] = ulids[k] end
end

-- What a job of the lane needs to start: its ordering, concurrency and rate key, '' for none.
local function keys_of(name)
  return match(name, '^.\t[^\t]*\t([^\t]*)\t([^\t]*)\t(.*)$')
end

-- Notes the keys of the lanes taken off a ring, and reads who owns and how many run.
local function read_ring()
  local orders, concs = {}, {}
  for k = 1, #ring_taken do
    local name = ring_taken[k]
    -- Not a tenant's.
    if byte(name) ~= 116 then
      local o, c, r = keys_of(name)
      taken_o[k], taken_c[k], taken_r[k] = o, c, r
      if o ~= '' and owners[o] == nil then
        owners[o] = false
        orders[#orders + 1] = o
      end
      if c ~= '' and not running[c] then
        -- So that it is asked for once.
        running[c] = 0
        concs[#concs + 1] = c
      end
    end
  end
  read_owners(orders)
  read_running(concs)
end

local function own(key, ulid)
  owners[key], owned[key] = ulid, true
end

-- The limit of a key that has one of its own, or of all keys: `own` is '0' when none has.
local function limit_of(all, own, field)
  if not limit_defaults then
    limit_defaults = call('HMGET', LIMITS, 'c', 'r', 'own_c', 'own_r')
    -- Limits of before the last two fields say nothing of them.
    if not limit_defaults[3] and call('EXISTS', LIMITS) == 0 then
      limit_defaults[3], limit_defaults[4] = '0', '0'
    end
  end
  return limit_defaults[own] ~= '0' and call('HGET', LIMITS, field) or limit_defaults[all]
end

local function conc_limit(key)
  local limit = conc_limits[limit_defaults and limit_defaults[3] == '0' and '' or key]
  if limit == nil then
    limit = tonumber(limit_of(1, 3, 'c:' .. key) or nil) or false
    conc_limits[limit_defaults[3] == '0' and '' or key] = limit
  end
  return limit
end

-- The queue's own rate has key ''.
local function rate_of(key)
  local rate = rates[key]
  if rate == nil then
    local text = key == '' and call('HGET', LIMITS, 'r:') or key ~= '' and limit_of(2, 4, 'r:' .. key)
    local interval, burst = match(text or '', '^(%d+) (%d+) ')
    rate = interval and {i = tonumber(interval), b = tonumber(burst)} or false
    rates[key] = rate
  end
  return rate
end

-- When all starts so far are paid for, in µs.
local function tat_of(key)
  local tat = tats[key]
  if not tat then
    tat = {us = tonumber(call('GET', P .. 'tat:' .. key) or 0)}
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
    return limit and math.max(limit - running_of(key), 0) or 100
  end
  local rate = rate_of(key)
  return rate and rate_room(rate, key) or 100
end

local function join_ring(p, entry)
  if ring_p == p then ring_back[#ring_back + 1] = entry else call('LPUSH', RINGS[p], entry) end
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

-- Takes the lane just looked at out of its ring, at whose left end it stands.
local function leave_ring(lane)
  if lane.t == '' then ring_back[#ring_back] = nil else call('LPOP', lanes_of(lane)) end
end

local function set_timer(key)
  local rate = rate_of(key)
  call('ZADD', RATED, rate and string.format('%.0f', rate_next(rate, key)) or '0', key)
end

local function bring(kind, key)
  if any_parked == nil then any_parked = call('EXISTS', PARKS) == 1 end
  if not any_parked then return end
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

-- Puts a job behind or before all that wait with it.
local function wait_last(ulid, key, priority)
  local name = lane_name(key, priority)
  if not name then
    call('LPUSH', WAIT[tonumber(priority or 1)] or WAIT[1], ulid)
    return
  end
  laned = laned + 1
  local lane = lane_of(name)
  if lane.o ~= '' and owner(lane.o) == ulid then
    call('RPUSH', jobs_of(name), ulid)
    return_to(name, ulid)
  else
    call('LPUSH', jobs_of(name), ulid)
    join_lane(name)
  end
end

local function wait_first(ulid, key, priority)
  local name = lane_name(key, priority)
  if not name then
    call('RPUSH', WAIT[tonumber(priority or 1)] or WAIT[1], ulid)
    return
  end
  laned = laned + 1
  call('RPUSH', jobs_of(name), ulid)
  return_to(name, ulid)
end

-- Puts back what was taken off the ring, in its order.
local function close_ring()
  if ring_p == '' then return end
  local key, left = RINGS[ring_p], {}
  for k = #ring_taken, ring_at + 1, -1 do left[#left + 1] = ring_taken[k] end
  if #left > 0 then call('RPUSH', key, unpack(left)) end
  if #ring_back > 0 then call('LPUSH', key, unpack(ring_back)) end
  ring_p, ring_taken, ring_at, ring_back = '', {}, 0, {}
end

-- The next entry of a priority's ring, of which up to `most` are taken off at once.
local function next_entry(p, most)
  if ring_p ~= p or ring_at == #ring_taken then
    close_ring()
    local taken = call('RPOP', RINGS[p], most)
    if not taken then return end
    ring_p, ring_taken = p, taken
    read_ring()
  end
  ring_at = ring_at + 1
  return ring_taken[ring_at]
end

-- True when some lane of the priority is ready, or seems so.
local function is_ready(p)
  if ring_p == p and (ring_at < #ring_taken or #ring_back > 0) then return true end
  return call('EXISTS', RINGS[p]) == 1
end

-- The lane of the tenant whose turn it is; nil when there is none, and the tenant leaves the ring.
local function next_of(tenant)
  local own = P .. 't:' .. tenant
  local name = call('LMOVE', own, own, 'RIGHT', 'LEFT')
  if not name then call('SREM', TENANTS, tenant) end
  return name
end

-- The next lane of a ring, which then stands at its left end, and its keys; nil when a tenant has left
-- it, and '' when it is empty. Fifth the tenant of a lane that may not be there: its only one, if it has one.
local function visit(p, most)
  local entry = next_entry(p, most)
  if not entry then return '' end
  if byte(entry) ~= 116 then
    ring_back[#ring_back + 1] = entry
    return entry, taken_o[ring_at], taken_c[ring_at], taken_r[ring_at]
  end
  local tenant = p .. '\t' .. sub(entry, 2)
  if alone then
    ring_back[#ring_back + 1] = entry
    return tenant .. '\t\t\t', '', '', '', tenant
  end
  local name = next_of(tenant)
  if not name then return end
  ring_back[#ring_back + 1] = entry
  return name, keys_of(name)
end

-- Takes back the turn of a tenant that turns out to have no lane; answers whether it has one.
local function has_lane(tenant)
  if next_of(tenant) then return true end
  ring_back[#ring_back] = nil
  return false
end

local function leave_lane(name)
  leave_ring(lane_of(name))
  call('ZREM', LANES, name)
  pass_on(name, '')
end

-- Parks the lane just looked at until a key of it has room.
local function park(name, kind, key)
  leave_ring(lane_of(name))
  if call('RPUSH', P .. 'park:' .. kind .. key, name) == 1 then call('ZADD', PARKS, '0', kind .. key) end
  any_parked = true
  if kind == 'r' then set_timer(key) end
  pass_on(name, kind)
  return false
end

-- Takes what the start of this job needs of its lane's keys; false, and the lane is parked, when it has
-- to wait.
local function start_in(name, ulid, o, c, r)
  local holder = o ~= '' and owner(o)
  if holder and holder ~= ulid then return park(name, 'o', o) end
  if c ~= '' and room_at('c', c) == 0 then return park(name, 'c', c) end
  if r ~= '' and room_at('r', r) == 0 then return park(name, 'r', r) end
  if o ~= '' and not holder then own(o, ulid) end
  if c ~= '' then running[c] = running_of(c) + 1 end
  local rate = r ~= '' and rate_of(r)
  if rate then rate_take(rate, r, 1) end
  return true
end

local function let_order_go(name, ulid)
  local lane = lane_of(name)
  if lane.o ~= '' and owner(lane.o) == ulid then
    own(lane.o, false)
    bring('o', lane.o)
  end
end

-- A run has ended whose job held these keys, or ''; with `again` the job keeps its ordering key.
local function run_ended(order, conc, again)
  if conc ~= '' then
    running[conc] = math.max(running_of(conc) - 1, 0)
    bring('c', conc)
  end
  if not again and order ~= '' then
    own(order, false)
    bring('o', order)
  end
end

-- Lanes whose rate allows it go on.
local function wake_lanes()
  for _, key in ipairs(call('ZRANGEBYSCORE', RATED, '-inf', string.format('%.0f', lane_now), 'LIMIT', 0, 100)) do
    call('ZREM', RATED, key)
    bring('r', key)
  end
end

-- Writes many fields of a hash, and takes others off. The field '' holds a value that is too long
-- for a listpack: reading a hundred fields of one of 500 entries takes a hundred walks over it.
local LONG = string.rep('-', 65)
local function write_table(key, set, gone)
  if #set > 0 then call('HSET', key, '', LONG, unpack(set)) end
  if #gone > 0 then call('HDEL', key, unpack(gone)) end
end

-- Printing a number costs more than writing it.
local DIGITS = {'1', '2', '3', '4', '5', '6', '7', '8', '9'}

local function close_lanes()
  close_ring()
  local now_owned, free = {}, {}
  for key in pairs(owned) do
    if owners[key] then
      now_owned[#now_owned + 1], now_owned[#now_owned + 2] = key, owners[key]
    else
      free[#free + 1] = key
    end
  end
  write_table(ORDERS, now_owned, free)
  local counted, none = {}, {}
  for key, n in pairs(running) do
    if n ~= ran[key] and n > 0 then
      counted[#counted + 1], counted[#counted + 2] = key, DIGITS[n] or tostring(n)
    elseif n ~= ran[key] then
      none[#none + 1] = key
    end
  end
  write_table(CONC, counted, none)
  for key, tat in pairs(tats) do
    if tat.dirty then
      local px = math.max(math.ceil(tat.us / 1000) - lane_now, 0) + 1000
      call('SET', P .. 'tat:' .. key, string.format('%.0f', tat.us), 'PX', string.format('%.0f', px))
    end
  end
  if laned ~= 0 then call('HINCRBY', STAT, 'laned', string.format('%.0f', laned)) end
end

local function lanes_wait()
  return call('EXISTS', P .. 'ring0', P .. 'ring1', P .. 'ring2') > 0
end
