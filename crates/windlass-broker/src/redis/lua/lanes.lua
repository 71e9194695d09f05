-- Lanes: whose turn it is. `windlass_jobs::lanes` in Lua, on keys; see there what each function
-- means.
--
-- The right end of a ring is next; a lane that is looked at stands at its left end again. What is
-- read of limits, counters and owners is kept for the length of the script; close_lanes() writes
-- owners and counters back. Cost per lane looked at: RPOP, with a tenant LMOVE, GET, SET per rate
-- key and script; owners of ordering keys, counters of concurrency keys and rings are read and
-- written many at a time, but for lanes of a tenant with several (HGET per key). Where no tenant's
-- job ever had another key (meta.alone), a tenant has one lane, whose name is known: no LMOVE.
--
-- This is the body of make_lanes(), see waiting.lua. What it needs seldom is in rates.lua and moves.lua.
local make_rates, make_moves, rates, moves
local function use_rates()
  rates = rates or make_rates()
  return rates
end
local function use_moves()
  moves = moves or make_moves()
  return moves
end

local TENANTS, ORDERS, CONC = P .. 'tenants', P .. 'orders', P .. 'conc'
local any_parked, limit_defaults = nil, nil
local conc_limits = {}
-- Ordering keys that nobody owns any more, and {key, ulid, ...} of those that somebody owns from now on: a key is
-- never let go after it was taken, within one script.
local freed, n_freed, owned, n_owned = {}, 0, {}, 0
-- Printing or parsing a number costs more than writing or looking up its digit.
local DIGITS, NUMBERS = {'1', '2', '3', '4', '5', '6', '7', '8', '9'}, {}
for n, digit in ipairs(DIGITS) do NUMBERS[digit] = n end
local RINGS = {['0'] = P .. 'ring0', ['1'] = P .. 'ring1', ['2'] = P .. 'ring2'}
-- The first byte of a tenant's entry in a ring: its name follows.
local TENANT = 116
-- The ring that is being gone through: its priority, entries taken off its right end with their
-- ordering, concurrency and rate keys (nil for none), how many of them were looked at, and what goes
-- back to its left end.
local ring_p, ring_taken, ring_n, ring_at, ring_back, n_back = '', {}, 0, 0, {}, 0
local taken_o, taken_c, taken_r = {}, {}, {}

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
    running[key], n_counted = n, n_counted + 1
    counted[n_counted] = key
  end
  return n
end

-- Reads how many jobs run of the keys in `counted` from this place on, in one call. They are noted as 0 before, so
-- that each is asked for once.
local function read_running(from)
  if from > n_counted then return end
  local counts = call('HMGET', CONC, unpack(counted, from, n_counted))
  for k = from, n_counted do
    local count = counts[k - from + 1]
    if count then running[counted[k]] = NUMBERS[count] or tonumber(count) end
  end
end

-- Reads who owns these ordering keys, noted as free before, in one call.
local function read_owners(keys, n)
  if n == 0 then return end
  local ulids = call('HMGET', ORDERS, unpack(keys))
  for k = 1, n do
    if ulids[k] then owners[keys[k]] = ulids[k] end
  end
end

-- What a job of the lane needs to start: its ordering, concurrency and rate key, nil for none.
local function keys_of(name)
  local o, c, r = match(name, '^.\t[^\t]*\t([^\t]*)\t([^\t]*)\t(.*)$')
  return o ~= '' and o or nil, c ~= '' and c or nil, r ~= '' and r or nil
end

-- Notes the keys of the lanes taken off a ring, and reads who owns and how many run.
local function read_ring()
  local orders, n_orders, from = {}, 0, n_counted + 1
  for k = 1, ring_n do
    local name = ring_taken[k]
    -- Mostly one key. A tenant's entry has no tabs.
    local o, c, r
    if byte(name, 4) == 9 then
      c = match(name, '^...\t([^\t]+)\t$')
      if not c then o, c, r = keys_of(name) end
    elseif byte(name) ~= TENANT then
      o = match(name, '^...([^\t]+)\t\t$')
      if not o then o, c, r = keys_of(name) end
    end
    if o then
      taken_o[k] = o
      if owners[o] == nil then
        n_orders = n_orders + 1
        owners[o], orders[n_orders] = false, o
      end
    end
    if c then
      taken_c[k] = c
      if not running[c] then
        n_counted = n_counted + 1
        running[c], counted[n_counted] = 0, c
      end
    end
    if r then taken_r[k] = r end
  end
  read_owners(orders, n_orders)
  read_running(from)
end

local function own(key, ulid)
  owners[key], owned[n_owned + 1], owned[n_owned + 2] = ulid, key, ulid
  n_owned = n_owned + 2
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

-- False for none.
local function conc_limit(key)
  if conc_most ~= nil then return conc_most end
  local limit = conc_limits[key]
  if limit == nil then
    limit = tonumber(limit_of(1, 3, 'c:' .. key) or nil) or false
    conc_limits[key] = limit
    if limit_defaults[3] == '0' then conc_most = limit end
  end
  return limit
end

-- Puts back what was taken off the ring, in its order.
local function close_ring()
  if ring_p == '' then return end
  local key, left = RINGS[ring_p], {}
  for k = ring_n, ring_at + 1, -1 do left[#left + 1] = ring_taken[k] end
  if #left > 0 then call('RPUSH', key, unpack(left)) end
  if n_back > 0 then call('LPUSH', key, unpack(ring_back)) end
  ring_p, ring_taken, ring_n, ring_at, ring_back, n_back = '', {}, 0, 0, {}, 0
  taken_o, taken_c, taken_r = {}, {}, {}
end

-- Takes up to `most` entries off a priority's ring; false when there are none.
local function open_ring(p, most)
  close_ring()
  local taken = call('RPOP', RINGS[p], most)
  if not taken then return false end
  ring_p, ring_taken, ring_n = p, taken, #taken
  read_ring()
  return true
end

-- True when some lane of the priority is ready, or seems so.
local function is_ready(p)
  if ring_p == p and (ring_at < ring_n or n_back > 0) then return true end
  return call('EXISTS', RINGS[p]) == 1
end

-- The lane of the tenant whose turn it is; nil when there is none, and the tenant leaves the ring.
local function next_of(tenant)
  local own = P .. 't:' .. tenant
  local name = call('LMOVE', own, own, 'RIGHT', 'LEFT')
  if not name then call('SREM', TENANTS, tenant) end
  return name
end

-- The lane of the tenant whose entry is looked at, and its keys; nil when the tenant has left the ring. Fifth
-- the tenant of a lane that may not be there: its only one, if it has one.
local function lane_of_tenant(tenant)
  if alone then return tenant .. '\t\t\t', nil, nil, nil, tenant end
  local name = next_of(tenant)
  if name then return name, keys_of(name) end
  ring_back[n_back] = nil
  n_back = n_back - 1
end

-- Takes back the turn of a tenant that turns out to have no lane; answers whether it has one.
local function has_lane(tenant)
  if next_of(tenant) then return true end
  ring_back[n_back] = nil
  n_back = n_back - 1
  return false
end

-- Takes what the start of this job needs of its lane's keys, nil for none; false, and the lane is parked,
-- when it has to wait.
local function start_in(name, ulid, o, c, r)
  local holder = o and owner(o)
  if holder and holder ~= ulid then return use_moves().park(name, 'o', o) end
  local runs = c and (running[c] or running_of(c))
  local most = c and conc_limit(c)
  if most and runs >= most then return use_moves().park(name, 'c', c) end
  if r and use_rates().room(r) == 0 then return use_moves().park(name, 'r', r) end
  if o and not holder then own(o, ulid) end
  if c then running[c] = runs + 1 end
  if r then rates.take(r, 1) end
  return true
end

-- Room has come for lanes that wait for the key.
local function bring(kind, key)
  if any_parked == nil then any_parked = call('EXISTS', PARKS) == 1 end
  if any_parked then use_moves().bring(kind, key) end
end

-- An ordering key is free, and its lanes go on.
local function disown(key)
  n_freed = n_freed + 1
  owners[key], freed[n_freed] = false, key
  if any_parked ~= false then bring('o', key) end
end

-- A run of a concurrency key has ended.
local function conc_ended(key)
  local runs = running[key] or running_of(key)
  if runs > 0 then running[key] = runs - 1 end
  if any_parked ~= false then bring('c', key) end
end

-- A value that is too long for a listpack: reading a hundred fields of one of 500 entries takes a hundred
-- walks over it.
local LONG = string.rep('-', 65)

-- Writes fields and values to a hash, with a field '' that holds a long value.
local function write_long(key, words, n)
  if n > 0 then call('HSET', key, '', LONG, unpack(words, 1, n)) end
end

-- In slices: what unpack can carry is bounded.
local function take_off(key, fields, n)
  for k = 1, n, 2000 do call('HDEL', key, unpack(fields, k, math.min(k + 1999, n))) end
end

local function write_counts()
  local set, n, none, n_none = {}, 0, {}, 0
  for k = 1, n_counted do
    local key = counted[k]
    local count = running[key]
    if count == 0 then
      n_none = n_none + 1
      none[n_none] = key
    else
      set[n + 1], set[n + 2] = key, DIGITS[count] or count
      n = n + 2
      if n == 2000 then
        write_long(CONC, set, n)
        n = 0
      end
    end
  end
  write_long(CONC, set, n)
  take_off(CONC, none, n_none)
  running, counted, n_counted = {}, {}, 0
end

function here.close()
  close_ring()
  take_off(ORDERS, freed, n_freed)
  write_long(ORDERS, owned, n_owned)
  n_freed, n_owned = 0, 0
  write_counts()
  if rates then rates.close() end
end

here.use_moves, here.own, here.start_in = use_moves, own, start_in
here.disown, here.conc_ended, here.read_running = disown, conc_ended, read_running
