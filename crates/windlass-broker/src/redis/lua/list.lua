-- One page of the jobs in a state.
--
-- KEYS[1]  the queue's meta key
-- ARGV     state, first entry (from 0), number of entries (at most 500)
-- Reply    length of the whole list, then the ids (of running jobs '<ulid>:<epoch>')
-- Cost     O(entries) at either end of a list, O(first) in its middle
local state, first, n = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local reply = {0}
local function add(ids)
  for _, id in ipairs(ids) do reply[#reply + 1] = id end
end
if state == 'pending' then
  for p = 0, 2 do
    local len = redis.call('LLEN', WAIT[p])
    reply[1] = reply[1] + len
    if n > 0 and first < len then
      -- The right end is next to run: count from there.
      local ids = redis.call('LRANGE', WAIT[p], -first - n, -first - 1)
      for k = #ids, 1, -1 do reply[#reply + 1] = ids[k] end
      n = n - #ids
      first = 0
    else
      first = first - len
    end
  end
elseif state == 'running' then
  reply[1] = redis.call('ZCARD', LEASE)
  add(redis.call('ZRANGE', LEASE, first, first + n - 1))
elseif state == 'scheduled' or state == 'retrying' then
  reply[1] = redis.call('ZCARD', DUE)
  add(redis.call('ZRANGE', DUE, first, first + n - 1))
else
  local key = state == 'failure' and DEAD or DONE
  reply[1] = redis.call('LLEN', key)
  add(redis.call('LRANGE', key, first, first + n - 1))
end
return reply
