-- More of make_lanes(): take_turns(claim, lists, wish) claims where there may be lanes and limits: by
-- priority, and within one in turn between the list of jobs without lanes and the ring of lanes.
--
-- Answers how many entries were looked at, and next_at(): when a limit of time lets something
-- start that waits now.
function here.take_turns(claim, lists, wish)
  local reply, looked_at, got = {}, 0, 0
  local limits = call('HMGET', LIMITS, 'q', 'r:')
  local rated = limits[2] and use_rates().has('')
  local slots, starts = math.huge, math.huge
  -- Those claimed in this call are not in the set yet.
  if limits[1] then slots = math.max(limits[1] - call('ZCARD', LEASE), 0) end
  if rated then starts = rates.room('') end
  local most = wish.paused and 0 or math.min(wish.want, slots, starts)
  if most > 0 then
    local due = call('ZRANGEBYSCORE', RATED, '-inf', string.format('%.0f', lane_now), 'LIMIT', 0, 100)
    if #due > 0 then use_moves().wake(due) end
  end
  local ghosts = tonumber(call('HGET', STAT, 'ghosts') or 0) > 0

  -- How many jobs wait in each list; nothing comes to them meanwhile.
  local lengths = {}

  -- True when a job waits in the list: ids of cancelled jobs at its head are taken off.
  local function any_in(p)
    if not lengths[p] then lengths[p] = call('LLEN', lists[p]) end
    while ghosts and lengths[p] > 0 and looked_at < 256 do
      local ulid = call('LINDEX', lists[p], -1)
      local h = redis.pcall('HMGET', J .. ulid, 'state', 'created_at')
      if h.err or (not h[1] and h[2]) then return true end
      call('RPOP', lists[p])
      lengths[p] = lengths[p] - 1
      claim(ulid)
      looked_at = looked_at + 1
    end
    return lengths[p] > 0
  end

  local function take_from_list(p, n)
    local ids = call('RPOP', lists[p], n) or {}
    lengths[p] = lengths[p] - #ids
    looked_at = looked_at + #ids
    for _, ulid in ipairs(ids) do
      if claim(ulid) == 'started' then got = got + 1 end
    end
  end

  -- Starts a job of each lane whose turn it is, of up to `lanes` lanes and until `ending` are got. Answers false
  -- when no lane is ready.
  local function take_from_lanes(p, ending, lanes)
    if (ring_p ~= p or ring_at == ring_n) and not open_ring(p, math.min(ending - got, 64)) then return false end
    local at, last, started, before = ring_at, math.min(ring_n, ring_at + lanes), got, got
    while at < last and started < ending and looked_at < 256 do
      at, n_back, looked_at = at + 1, n_back + 1, looked_at + 1
      local name, o, c, r, guessed = ring_taken[at], taken_o[at], taken_c[at], taken_r[at], nil
      ring_back[n_back] = name
      if not c and not o and byte(name) == TENANT then
        name, o, c, r, guessed = lane_of_tenant(p .. '\t' .. sub(name, 2))
      end
      local list = name and LANE_JOBS .. name
      -- Until one has started, or none can.
      while list do
        local ulid = call('RPOP', list)
        if not ulid then
          if not guessed or has_lane(guessed) then use_moves().leave(name) end
          break
        end
        local outcome = claim(ulid, name, o, c, r)
        if outcome == 'started' then
          started = started + 1
          break
        end
        if outcome == 'parked' then
          call('RPUSH', list, ulid)
          break
        end
        laned = laned - 1
        if outcome == 'buried' or looked_at == 256 then break end
        looked_at = looked_at + 1
      end
    end
    ring_at, got, laned = at, started, laned - (started - before)
    return true
  end

  local turn = wish.ring_next
  for _, round in ipairs(wish.rounds) do
    local p, name, ending = round[1], tostring(round[1]), math.min(got + round[2], most)
    while got < ending and looked_at < 256 do
      if not any_in(p) then
        -- Nothing comes to the list meanwhile.
        while got < ending and looked_at < 256 and take_from_lanes(name, ending, 64) do end
        break
      elseif not is_ready(name) then
        take_from_list(p, math.min(ending - got, 256 - looked_at))
      else
        if turn then take_from_lanes(name, ending, 1) else take_from_list(p, 1) end
        turn = not turn
      end
    end
  end
  close_ring()
  if turn ~= wish.ring_next then call('HSET', KEYS[1], 'turn', turn and '1' or '0') end
  if rated and got > 0 then rates.take('', got) end
  -- Whether jobs wait because the rate is used up: ids of cancelled ones do not.
  local waits = got >= starts and got < math.min(slots, wish.want) and not wish.paused
    and (any_in(0) or any_in(1) or any_in(2) or lanes_wait())
  reply.looked_at = looked_at

  function reply.next_at()
    if wish.paused or got >= slots then return end
    if got >= starts then return waits and rates.next('') or nil end
    local first = call('ZRANGE', RATED, 0, 0, 'WITHSCORES')
    return tonumber(first[2])
  end
  return reply
end
