-- entries(list, first, n): {length of the whole list, entries read, entry, ...} from entry `first`
-- (from 0) on. Of waiting jobs, those next to run first; their ids may be ghosts. Of running jobs
-- '<ulid>:<epoch>'. Cost: O(n) at either end of a list, O(first) in its middle.
local function entries(list, first, n)
  if list == 'pending' then
    local reply = {0, 0}
    for p = 0, 2 do
      local len = call('LLEN', WAIT[p])
      reply[1] = reply[1] + len
      if n > 0 and first < len then
        -- The right end is next to run: count from there.
        local ids = call('LRANGE', WAIT[p], -first - n, -first - 1)
        for k = #ids, 1, -1 do reply[#reply + 1] = ids[k] end
        n = n - #ids
        first = 0
      else
        first = math.max(first - len, 0)
      end
    end
    reply[1] = reply[1] + (call('HGET', STAT, 'laned') or 0)
    -- Then those in lanes, by the lanes' names: of the first 10,000 lanes.
    for start = 0, 9900, 100 do
      local names = n > 0 and call('ZRANGE', P .. 'lanes', start, start + 99) or {}
      for _, name in ipairs(names) do
        local len = n > 0 and call('LLEN', P .. 'l:' .. name) or 0
        if n > 0 and first < len then
          local ids = call('LRANGE', P .. 'l:' .. name, -first - n, -first - 1)
          for k = #ids, 1, -1 do reply[#reply + 1] = ids[k] end
          n = n - #ids
          first = 0
        else
          first = math.max(first - len, 0)
        end
      end
      if #names < 100 then break end
    end
    reply[2] = #reply - 2
    return reply
  end
  local ids, len
  if list == 'scheduled' or list == 'retrying' then
    -- After those that wait for their time, those that wait for other jobs.
    local due = call('ZCARD', DUE)
    len, ids = due + call('ZCARD', P .. 'blocked'), call('ZRANGE', DUE, first, first + n - 1)
    if #ids < n then
      local from = math.max(first - due, 0)
      for _, ulid in ipairs(call('ZRANGE', P .. 'blocked', from, from + n - #ids - 1)) do ids[#ids + 1] = ulid end
    end
  elseif list == 'success' or list == 'cancelled' then
    len, ids = call('LLEN', DONE), call('LRANGE', DONE, first, first + n - 1)
  elseif list == 'failure' then
    len, ids = call('ZCARD', DEAD), call('ZREVRANGE', DEAD, first, first + n - 1)
  else
    local set = list == 'running' and LEASE or PARKED
    len, ids = call('ZCARD', set), call('ZRANGE', set, first, first + n - 1)
  end
  return {len, #ids, unpack(ids)}
end
