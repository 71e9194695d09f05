-- Rates: how many may start, and when the next may. The body of make_rates(), see waiting.lua and lanes.lua.
local made, tats = {}, {}

-- The queue's own rate has key ''.
local function of(key)
  local rate = made[key]
  if rate == nil then
    local text = key == '' and call('HGET', LIMITS, 'r:') or key ~= '' and limit_of(2, 4, 'r:' .. key)
    local interval, burst = match(text or '', '^(%d+) (%d+) ')
    rate = interval and {i = tonumber(interval), b = tonumber(burst)} or false
    made[key] = rate
  end
  return rate
end

-- When all starts so far are paid for, in µs; 0 where they are.
local function tat_of(key)
  local tat = tats[key]
  if not tat then
    local us = tonumber(call('GET', P .. 'tat:' .. key) or 0)
    -- What is paid for is forgotten; the server keeps it a second longer.
    tat = {us = us > lane_now * 1000 and us or 0}
    tats[key] = tat
  end
  return tat
end

function here.has(key)
  return of(key) and true or false
end

-- How many may start at once; 100 without a rate.
function here.room(key)
  local rate = of(key)
  if not rate then return 100 end
  local now_us = lane_now * 1000
  local left = rate.b * rate.i - (math.max(tat_of(key).us, now_us) - now_us)
  return math.max(math.floor(left / rate.i), 0)
end

-- So many have started.
function here.take(key, n)
  local rate = of(key)
  if not rate then return end
  local tat = tat_of(key)
  tat.us = math.max(tat.us, lane_now * 1000) + n * rate.i
  tat.dirty = true
end

-- When the next may start, ms; nil without a rate.
function here.next(key)
  local rate = of(key)
  return rate and math.ceil((tat_of(key).us - (rate.b - 1) * rate.i) / 1000) or nil
end

function here.close()
  for key, tat in pairs(tats) do
    if tat.dirty then
      local px = math.max(math.ceil(tat.us / 1000) - lane_now, 0) + 1000
      call('SET', P .. 'tat:' .. key, string.format('%.0f', tat.us), 'PX', string.format('%.0f', px))
    end
  end
end
