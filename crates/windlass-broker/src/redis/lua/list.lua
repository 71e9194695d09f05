-- One page of the jobs in a state.
--
-- KEYS[1]  the queue's meta key
-- ARGV     state, first entry (from 0), number of entries (1 to 500)
-- Reply    length of the whole list, entries read, then the ids of those that are what the list
--          says (of running jobs '<ulid>:<epoch>')
-- Cost     O(entries) at either end of a list, O(first) in its middle; one HGET per entry of a
--          list that may hold ghosts
local state, first, n = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local reply = {0, 0}
local function add(ids, is_right)
  reply[2] = reply[2] + #ids
  for _, id in ipairs(ids) do
    if not is_right or is_right(redis.pcall('HGET', J .. id, 'state'), id) then reply[#reply + 1] = id end
  end
end
if state == 'pending' then
  local waits = function(found, id)
    return found == false and redis.call('EXISTS', J .. id) == 1
  end
  for p = 0, 2 do
    local len = redis.call('LLEN', WAIT[p])
    reply[1] = reply[1] + len
    if n > 0 and first < len then
      -- The right end is next to run: count from there.
      local ids = redis.call('LRANGE', WAIT[p], -first - n, -first - 1)
      local turned = {}
      for k = #ids, 1, -1 do turned[#turned + 1] = ids[k] end
      add(turned, waits)
      n = n - #ids
      first = 0
    else
      first = math.max(first - len, 0)
    end
  end
elseif state == 'running' then
  reply[1] = redis.call('ZCARD', LEASE)
  add(redis.call('ZRANGE', LEASE, first, first + n - 1))
elseif state == 'scheduled' or state == 'retrying' then
  reply[1] = redis.call('ZCARD', DUE)
  add(redis.call('ZRANGE', DUE, first, first + n - 1))
elseif state == 'failure' then
  reply[1] = redis.call('ZCARD', DEAD)
  add(redis.call('ZREVRANGE', DEAD, first, first + n - 1))
else
  reply[1] = redis.call('LLEN', DONE)
  add(redis.call('LRANGE', DONE, first, first + n - 1))
end
return reply
