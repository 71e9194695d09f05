-- take_turns(claim, lists, wish, count, got): claims where there may be lanes and limits: by
-- priority, and within one in turn between the list of jobs without lanes and the ring of lanes.
--
-- Answers how many entries were looked at, and next_at(): when a limit of time lets something
-- start that waits now.
local function take_turns(claim, lists, wish, count, got)
  local reply = {looked_at = 0}
  local limits = redis.call('HMGET', LIMITS, 'q', 'r:')
  local rate = limits[2] and rate_of('')
  local slots, starts = math.huge, math.huge
  -- Those claimed in this call are not in the set yet.
  if limits[1] then slots = math.max(limits[1] - redis.call('ZCARD', LEASE), 0) end
  if rate then starts = rate_room(rate, '') end
  local most = wish.paused and 0 or math.min(wish.want, slots, starts)
  if most > 0 then wake_lanes() end
  local ghosts = tonumber(redis.call('HGET', STAT, 'ghosts') or 0) > 0

  -- True when a job waits in the list: ids of cancelled jobs at its head are taken off.
  local function any_in(list)
    if not ghosts then return redis.call('EXISTS', list) == 1 end
    while reply.looked_at < 256 do
      local ulid = redis.call('LINDEX', list, -1)
      if not ulid then return false end
      local h = redis.pcall('HMGET', J .. ulid, 'state', 'created_at')
      if h.err or (not h[1] and h[2]) then return true end
      redis.call('RPOP', list)
      claim(ulid)
      reply.looked_at = reply.looked_at + 1
    end
    return false
  end

  local function take_from_lane(p)
    reply.looked_at = reply.looked_at + 1
    local name = visit(p)
    if not name then return end
    local list = lane_of(name).list
    while reply.looked_at <= 256 do
      local ulid = redis.call('RPOP', list)
      if not ulid then return leave_lane(name) end
      laned = laned - 1
      local outcome = claim(ulid, name)
      if outcome == 'parked' then
        redis.call('RPUSH', list, ulid)
        laned = laned + 1
      end
      if outcome ~= '' then return end
      reply.looked_at = reply.looked_at + 1
    end
  end

  local turn = wish.ring_next
  for p = 0, 2 do
    local ring = P .. 'ring' .. p
    while got() < most and reply.looked_at < 256 do
      local from_ring = redis.call('EXISTS', ring) == 1
      if not from_ring then
        local ids = redis.call('RPOP', lists[p], math.min(most - got(), 256 - reply.looked_at))
        if not ids then break end
        reply.looked_at = reply.looked_at + #ids
        for _, ulid in ipairs(ids) do claim(ulid) end
      else
        if any_in(lists[p]) then
          from_ring = turn
          turn = not turn
        end
        if from_ring then
          take_from_lane(p)
        else
          reply.looked_at = reply.looked_at + 1
          claim(redis.call('RPOP', lists[p]))
        end
      end
    end
  end
  if turn ~= wish.ring_next then redis.call('HSET', KEYS[1], 'turn', turn and '1' or '0') end
  if rate and got() > 0 then rate_take(rate, '', got()) end

  function reply.next_at()
    if wish.paused or got() >= slots then return end
    if got() >= starts then
      if redis.call('EXISTS', lists[0], lists[1], lists[2]) > 0 or lanes_wait() then return rate_next(rate, '') end
      return
    end
    local first = redis.call('ZRANGE', RATED, 0, 0, 'WITHSCORES')
    return tonumber(first[2])
  end
  return reply
end
