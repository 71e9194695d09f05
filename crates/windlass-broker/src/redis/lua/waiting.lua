-- Where a job waits: in the list of its priority, or in a lane. A lane's name is
-- '<priority>\t<tenant>\t<ordering>\t<concurrency>\t<rate key>'.
local LANES, PARKS, RATED, LIMITS = P .. 'lanes', P .. 'parks', P .. 'rated', P .. 'limits'
-- Before a lane's name: the list of its jobs.
local LANE_JOBS = P .. 'l:'
-- When the script runs, ms; how many more ids stand in lanes than before; `meta.alone`.
local lane_now, laned, alone = 0, 0, nil
-- How many jobs of a concurrency key run, by key, and the keys in there, each once: all are written back.
local running, counted, n_counted = {}, {}, 0
-- Where no key has a limit of its own, that of all; false for none, nil as long as nobody asked.
local conc_most
-- Who owns an ordering key, false for nobody.
local owners = {}

-- What can be done with lanes: functions by name, see lanes.lua. To make a function costs more than to call it, and
-- there are some fifty: only a script that meets a lane makes them. `here` is what make_lanes() answers, and so in
-- other files that are the bodies of such.
local make_lanes, lanes
local function use_lanes()
  lanes = lanes or make_lanes()
  return lanes
end

-- The lane of a job whose `priority` field ends in 'l'; nil for any other.
local function lane_name(key, priority)
  if not priority or sub(priority, -1) ~= 'l' then return end
  local h = call('HMGET', key, 'tenant', 'order', 'conc', 'rate')
  return sub(priority, 1, 1) .. '\t' .. (h[1] or '') .. '\t' .. (h[2] or '') .. '\t' .. (h[3] or '') .. '\t' .. (h[4] or '')
end

-- Puts a job behind all that wait with it (LPUSH), or before them (RPUSH).
local function push_waiting(side, ulid, key, priority)
  local name = lane_name(key, priority)
  if name then
    laned = laned + 1
    use_lanes().use_moves().push(side, name, ulid)
  else
    call(side, WAIT[tonumber(priority or 1)] or WAIT[1], ulid)
  end
end

local function lanes_wait()
  return call('EXISTS', P .. 'ring0', P .. 'ring1', P .. 'ring2') > 0
end

-- Writes what a script has changed of lanes.
local function close_lanes()
  if lanes then lanes.close() end
  if laned ~= 0 then call('HINCRBY', STAT, 'laned', string.format('%.0f', laned)) end
end
