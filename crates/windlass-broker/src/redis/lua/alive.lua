-- prove_alive(lease): a worker whose lease was ended speaks. It was alive, so that delivery was
-- no crash: it is taken off the count, once. Cost: 1 read, 2 writes when it counts.
local function prove_alive(member)
  local key, epoch = J .. sub(member, 1, 26), sub(member, 28)
  local h = redis.pcall('HMGET', key, 'lost', 'run', 'state')
  if h.err or not h[1] or h[3] == 'success' or h[3] == 'failure' or h[3] == 'cancelled' then return end
  local at, to = string.find(h[1], ',' .. epoch .. ',', 1, true)
  if not at then return end
  local rest = sub(h[1], 1, at) .. sub(h[1], to + 1)
  if rest == ',' then call('HDEL', key, 'lost') else call('HSET', key, 'lost', rest) end
  local e, deliveries, tail = match(h[2] or '', '^(%d+) (%d+) (.*)$')
  if e then
    call('HSET', key, 'run', e .. ' ' .. math.max(deliveries - 1, 0) .. ' ' .. tail)
  end
end
