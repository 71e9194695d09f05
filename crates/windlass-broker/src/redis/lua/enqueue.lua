-- Accepts up to 250 jobs, all or none.
--
-- KEYS[1]  the queue's meta key
-- ARGV     wake channel prefix, check ('1': some id stands twice), number of jobs, then per job:
--          ulid, priority 0-2 (or, with a unique key, special words: see below), when and expires ('' never | '+ms' after now | 'ms' instant), args
--          ('' when they lie in the hash), number n of hash words, and n words field, value, ...
--          special words, with tabs between: priority, until 's', 'f' or 't' and on clash 'k' or
--          'r' ('' no unique key), ttl ms, debounce at most ms or '', unique key, lane or ''; of
--          a job that waits for others before all this 'd', their ids with spaces between, a newline
-- Reply    '1' for each job accepted, '0' for each known id, '2' for each that another stands
--          for, '3' for each that another took over, as one string; if there are such, a list of
--          that string and the others' ids in order; the error QUEUEFULL with the bound when more would wait than meta.max_waiting; the error FORMAT
-- Atomic   the whole batch; the first write is one that Redis refuses when it is out of memory,
--          so that then nothing has changed
-- Cost     per batch TIME, HMGET, EXISTS, LPUSH, HINCRBY, EXISTS; per job one HSET, with a unique
--          key GET and SET too, about 8 commands when it clashes; one that waits for others 4 more,
--          and O(others), of which there are 1,000 in all unless they are one job's
local count = tonumber(ARGV[3])
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
-- A number handed to redis.call is printed as a float, which costs more than the rest of the call.
local now_text = string.format('%.0f', now)
lane_now = now
local meta = call('HMGET', KEYS[1], 'since', 'max_waiting', 'format', 'special', 'flows')
local wrong = check_format(meta[3])
if wrong then return wrong end

local at, keys = {}, {}
local i = 4
for k = 1, count do
  at[k], keys[k] = i, J .. ARGV[i]
  i = i + 6 + ARGV[i + 5]
end
local ask = ARGV[2] == '1' or call('EXISTS', unpack(keys)) > 0

local is_new, new = {}, count
if ask then
  local seen = {}
  new = 0
  for k = 1, count do
    is_new[k] = not seen[keys[k]] and call('EXISTS', keys[k]) == 0
    seen[keys[k]] = true
    if is_new[k] then new = new + 1 end
  end
end
if meta[2] and new > 0 then
  local waiting = call('LLEN', WAIT[0]) + call('LLEN', WAIT[1]) + call('LLEN', WAIT[2])
    + call('ZCARD', DUE) + call('ZCARD', BLOCKED) - (call('HGET', STAT, 'ghosts') or 0) + (call('HGET', STAT, 'laned') or 0)
  if waiting + new > tonumber(meta[2]) then return redis.error_reply('QUEUEFULL ' .. meta[2]) end
end

-- An id of a forgotten job that is used anew must not stand in the lists twice.
if new > 0 and call('EXISTS', GONE) == 1 then
  for k = 1, count do
    local ulid = ARGV[at[k]]
    if (not ask or is_new[k]) and call('SREM', GONE, ulid) == 1 then
      local lane = call('HGET', P .. 'gonelanes', ulid)
      if lane then
        call('HDEL', P .. 'gonelanes', ulid)
        laned = laned - call('LREM', P .. 'l:' .. lane, 1, ulid)
      else
        for p = 0, 2 do call('LREM', WAIT[p], 1, ulid) end
      end
      call('HINCRBY', STAT, 'ghosts', -1)
    end
  end
end

local function instant(text)
  if sub(text, 1, 1) == '+' then return now + tonumber(text) end
  return tonumber(text)
end

local PRIORITY = {['0'] = 0, ['1'] = 1, ['2'] = 2}
local fresh, lists = {}, {[0] = {}, {}, {}}
local names, accepted, news = {}, 0, false
local laned_in, in_lane = {}, {}
for k = 1, count do
  local key = keys[k]
  local a = at[k]
  -- Of an id that stands twice the first may have met a clash.
  local known = ask and not is_new[k] and call('EXISTS', key) == 1
  local special = ARGV[a + 1]
  local priority, unique, holder, lane, parents = PRIORITY[special], nil, nil, '', nil
  if not known and byte(special) == 100 then
    parents, special = match(special, '^d([^\n]*)\n(.*)$')
    priority = PRIORITY[special]
  end
  if not known and not priority then
    local p, mode, ttl, most, ukey
    p, mode, ttl, most, ukey, lane = match(special, '^(%d)\t(%a*)\t(%d*)\t(%d*)\t([^\t]*)\t(.*)$')
    priority = tonumber(p)
    if mode ~= '' then
      unique = {key = ukey, ttl = tonumber(ttl), most = tonumber(most), replaces = sub(mode, 2) == 'r'}
      local wish = ARGV[a + 2] == '' and now or instant(ARGV[a + 2])
      local expires = ARGV[a + 3] ~= '' and string.format('%.0f', instant(ARGV[a + 3]))
      local replaced, moved
      holder, replaced, moved = clash(unique, parents, now, wish, ARGV[a + 4], expires, a + 6, a + 5 + ARGV[a + 5])
      fresh[k] = replaced and '3' or '2'
      names[#names + 1] = holder
      news = news or moved
    end
  end
  if known then
    fresh[k] = '0'
  elseif not holder then
    fresh[k] = '1'
    accepted = accepted + 1
    local ulid, when, expires, args, n = ARGV[a], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4], tonumber(ARGV[a + 5])
    call('HSET', key, 'created_at', now_text, unpack(ARGV, a + 6, a + 5 + n))
    if args ~= '' then call('SET', P .. 'a:' .. ulid, args) end
    if expires ~= '' then call('HSET', key, 'expires_at', instant(expires)) end
    local run_at = when == '' and now or instant(when)
    if parents then
      call('HSET', key, 'state', 'blocked')
      if run_at > now then call('HSET', key, 'run_at', run_at) end
      hold_for(ulid, parents, run_at > now and string.format('%.0f', run_at) or '0', now_text)
      if not meta[5] then meta[5] = use('flows') end
    elseif run_at > now then
      call('HSET', key, 'state', 'scheduled', 'run_at', run_at)
      call('ZADD', DUE, run_at, ulid)
    else
      local list = lists[priority]
      if lane ~= '' then
        list = in_lane[lane]
        if not list then
          list = {}
          in_lane[lane] = list
          laned_in[#laned_in + 1] = lane
        end
      end
      list[#list + 1] = ulid
    end
    if unique then hold(unique.key, ulid, now + unique.ttl, unique.ttl) end
    if not meta[4] and (unique or lane ~= '') then meta[4] = use('special') end
  end
end
for p = 0, 2 do
  if #lists[p] > 0 then call('LPUSH', WAIT[p], unpack(lists[p])) end
end
if #laned_in > 0 then
  local known, joined = call('ZMSCORE', LANES, unpack(laned_in)), {}
  for k, lane in ipairs(laned_in) do
    call('LPUSH', LANE_JOBS .. lane, unpack(in_lane[lane]))
    laned = laned + #in_lane[lane]
    if not known[k] then
      joined[#joined + 1], joined[#joined + 2] = '0', lane
      use_lanes().use_moves().enter(lane)
    end
  end
  if #joined > 0 then call('ZADD', LANES, unpack(joined)) end
end
close_lanes()
if accepted > 0 then
  if not meta[1] then call('HSET', KEYS[1], 'since', now) end
  if not meta[1] and not meta[4] and not meta[5] then call('HSET', KEYS[1], 'format', @PLAIN@) end
  call('HINCRBY', STAT, 'enqueued', accepted)
  news = true
end
if news and call('EXISTS', IDLE) == 1 then wake(ARGV[1]) end
if #names > 0 then return {table.concat(fresh), unpack(names)} end
return table.concat(fresh)
