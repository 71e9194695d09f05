-- Finishes, reaps, promotes and claims, in this order, in one step.
--
-- KEYS[1]  the queue's meta key
-- ARGV     1 wake channel prefix, 2 worker ('' = claim nothing, do not reap or promote),
--          3 jobs wanted 0-128, or 'n:high:normal:low' to take of each priority up to so many first, 4 lease ms, 5 grace ('1': the worker had lost the broker),
--          6 when it was sent, ms or '' , 7 how late it may be, ms: a later claim is as none, and
--          next due is now, 8 deliveries at which a job is poisoned, 9 terminal jobs kept per
--          list, 10 number of finishes (at most 128), then per finish the lease '<ulid>:<epoch>',
--          a verb and its words, before it where the worker knows what ends with the run: N (nothing),
--          O ordering key, C concurrency key, or H ordering key, concurrency key, unique key ('' none):
--            s (success)             r result            k result ('' none), skipped
--            f reason, failures, error                   t delay ms, failures, error (retry)
--            z delay ms (snooze)     c error (cancelled) b (back: released)
--            u delay ms, park after ms (unknown kind)
-- Reply    now, acks ('1' taken, '0' stale, one string), next due ms or '', next lease end ms or
--          '', since ms or '', when the first message of the outbox is due, ms or '', then 4 values per
--          claimed job: ulid, kind, args, and the rest: what ends with the run ('-' is not said, '' is nothing, or
--          the words of H with tabs between), a newline, then with tabs between epoch, deliveries, failures, max
--          attempts, options, or nothing for 1, 1, 0, '', ''; '' for '-' and nothing; a lane's name for its two keys
--          and nothing; or the error FORMAT
-- Atomic   everything; each finish is fenced by its own lease and refused alone
-- Memory   the first write is a ZREM, which Redis never refuses for memory: acks pass when full
-- Cost     per batch TIME, HMGET, 2 ZRANGEBYSCORE, ZREM, LPUSH, HINCRBY, RPOP, ZADD,
--          2 EXISTS; per job HSET at finish (HMGET too where something may end with the run and no worker
--          says what, and where some lease of the batch is not there), HMGET + HSET at claim; at most 100 reaped,
--          100 promoted and 256 taken off the waiting lists

-- A local is found faster than a global.
local ARGV, try = ARGV, redis.pcall
local prefix, worker, want, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
-- Priorities in the order in which they are claimed, each with how many at most.
local rounds = {{0, 128}, {1, 128}, {2, 128}}
if not want then
  local n, high, normal, low = match(ARGV[3], '^(%d+):(%d+):(%d+):(%d+)$')
  want = tonumber(n)
  rounds = {{0, tonumber(high)}, {1, tonumber(normal)}, {2, tonumber(low)}, rounds[1], rounds[2], rounds[3]}
end
local poison, keep, nf = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
-- A number handed to redis.call is printed as a float, which costs more than the rest of the call.
local now_text = string.format('%.0f', now)
local meta = call('HMGET', KEYS[1], 'paused', 'since', 'reap_after', 'graced_at', 'format', 'special', 'turn', 'flows', 'alone')
local wrong = check_format(meta[5])
if wrong then return wrong end
local paused = meta[1] == '1'
local late = ARGV[6] ~= '' and now - ARGV[6] > tonumber(ARGV[7])
if late then worker, want = '', 0 end
local front, runs_again = {}, false
-- The queue has limits, or some job had a unique key or a lane. Of the job whose run ends, or whose start
-- is tried: the unique key that it lets go at its end, and whether it will not run again.
local special, unique_held, ended = meta[6], '', false
local damaged = false
alone = meta[9]
lane_now = now
local own, start_in, disown, conc_ended
if special then
  own, start_in, disown, conc_ended = use_lanes().own, lanes.start_in, lanes.disown, lanes.conc_ended
end
-- Some job waits, or is waited for. `told`: the jobs that have ended, {ulid, letter, ...}.
local flows, told = meta[8], {}
local done, n_done, successes, dead, add = {}, 0, 0, {}, {}

local function count(field, by)
  add[field] = (add[field] or 0) + by
end

-- A job has ended, and who waits for it is to be told.
local function note_end(ulid, letter)
  if flows then told[#told + 1], told[#told + 2] = ulid, letter end
end

-- What it held is free.
local function left(ulid)
  ended = true
  if unique_held ~= '' then let_go(ulid, unique_held) end
end

-- Its hash is none any more: whoever reads it sees that it is damaged. Neighbours go on.
local function quarantine(ulid)
  dead[#dead + 1] = ulid
  count('failure', 1)
  note_end(ulid, 'f')
  if special then left(ulid) end
end

-- Whether a command was refused, as where a key is of another type.
local function is_error(reply)
  return type(reply) == 'table' and reply.err ~= nil
end

-- Ends a job in failure. What it writes would be refused where the hash is none: that is known before.
local function bury(ulid, key, reason, err)
  call('HSET', key, 'state', 'failure', 'reason', reason, 'finished_at', now_text)
  set_error(ulid, err)
  dead[#dead + 1] = ulid
  count('failure', 1)
  note_end(ulid, 'f')
  if special then left(ulid) end
end

-- Terminal with a result, or cancelled.
local function finish_done(ulid, key, state)
  if is_error(try('HSET', key, 'state', state, 'finished_at', now_text)) then return quarantine(ulid) end
  n_done = n_done + 1
  done[n_done] = ulid
  count(state, 1)
  note_end(ulid, state == 'success' and 's' or 'c')
  if special then left(ulid) end
end

local function cancelled(ulid, key, err)
  if is_error(try('HDEL', key, 'cancel', 'run_at')) then return quarantine(ulid) end
  set_error(ulid, err)
  finish_done(ulid, key, 'cancelled')
end

-- How many words say what ends with a run, by the letter before them, that letter counted; and how many
-- words a verb has.
local HINTS = {N = 1, O = 2, C = 2, H = 4}
local words = {s = 0, r = 1, k = 2, f = 3, t = 3, z = 1, c = 1, b = 0, u = 2}

-- Most runs end so. As finish_done, without its calls.
local function succeed(ulid, key)
  local new = try('HSET', key, 'state', 'success', 'finished_at', now_text)
  if new ~= 1 and is_error(new) then return quarantine(ulid) end
  n_done, successes = n_done + 1, successes + 1
  done[n_done] = ulid
  if flows then note_end(ulid, 's') end
  ended = true
  if unique_held ~= '' then let_go(ulid, unique_held) end
end

-- The other ends by their verbs, made when the first is met.
local function make_ends()
  -- The run ended in order and the job is to run again: its delivery is taken back. Answers true
  -- when its cancel was asked for, which ends it instead, or it is damaged; and the field `run`.
  local function again(ulid, key)
    local h = try('HMGET', key, 'run', 'cancel')
    if h.err then
      quarantine(ulid)
      return true
    end
    runs_again = true
    local epoch, deliveries, rest = match(h[1] or '', '^(%d+) (%d+) (.*)$')
    if epoch then call('HSET', key, 'run', epoch .. ' ' .. (deliveries - 1) .. ' ' .. rest) end
    if h[2] then cancelled(ulid, key, '@CANCELLED@') end
    return h[2], h[1]
  end

  local function put_off(ulid, key, delay, state)
    local at = now + delay
    call('HSET', key, 'state', state, 'run_at', at)
    call('HDEL', key, 'progress')
    call('ZADD', DUE, at, ulid)
  end

  return {
    r = function(u, key, w)
      call('SET', P .. 'r:' .. u, ARGV[w])
      finish_done(u, key, 'success')
    end,
    k = function(u, key, w)
      if ARGV[w] ~= '' then call('SET', P .. 'r:' .. u, ARGV[w]) end
      try('HSET', key, 'skipped', 1)
      finish_done(u, key, 'success')
    end,
    f = function(u, key, w)
      if is_error(try('HSET', key, 'attempt', ARGV[w + 1])) then return quarantine(u) end
      bury(u, key, ARGV[w], ARGV[w + 2])
    end,
    t = function(u, key, w)
      local gone, run = again(u, key)
      if gone then return end
      call('HSET', key, 'attempt', ARGV[w + 1])
      note_attempt(u, run, ARGV[w + 1], now_text, 'retried', ARGV[w + 2], true)
      put_off(u, key, ARGV[w], 'retrying')
      count('retried', 1)
      count('retrying', 1)
    end,
    z = function(u, key, w)
      if not again(u, key) then put_off(u, key, ARGV[w], 'scheduled') end
    end,
    c = function(u, key, w) cancelled(u, key, ARGV[w]) end,
    b = function(u, key)
      if not again(u, key) then front[#front + 1] = u end
    end,
    u = function(u, key, w)
      if again(u, key) then return end
      local since = tonumber(call('HGET', key, 'unknown_since'))
      if not since then
        since = now
        call('HSET', key, 'unknown_since', now)
      end
      if now - since >= tonumber(ARGV[w + 1]) then
        call('HDEL', key, 'state', 'progress')
        call('ZADD', PARKED, 0, u)
        ended = true
      else
        put_off(u, key, ARGV[w], 'scheduled')
      end
    end,
  }
end
local ends = {s = succeed}
local function other_end(verb)
  ends = make_ends()
  ends.s = succeed
  return ends[verb]
end

-- Ordering, concurrency and unique key of a job whose run ends, as its hash says; '' for none.
local function holds_of(ulid)
  local h = try('HMGET', J .. ulid, 'kind', 'order', 'conc', 'unique', 'opts')
  if h.err or not h[1] then
    -- Nothing says what it held.
    damaged = true
    return '', '', ''
  end
  return h[2] or '', h[3] or '', h[4] and ends_hold(h[5], '[sf]') and h[4] or ''
end

-- A job's run ends, of which no worker says what it held: `end_it` is called.
local function end_run(ulid, end_it, word)
  local order, conc
  order, conc, unique_held = holds_of(ulid)
  ended = false
  end_it(ulid, J .. ulid, word)
  if conc ~= '' then conc_ended(conc) end
  if ended and order ~= '' then disown(order) end
end

-- Some of these leases, of which so many are taken off, were not there: says which were. A run is one that its job
-- knows; of those whose job is damaged so many as are left, in their order; of one that is named twice the first.
local function which_stood(member, n, gone)
  local stood, seen, unclear = {}, {}, {}
  for k = 1, n do
    local ulid, epoch = sub(member[k], 1, 26), sub(member[k], 28)
    local h = not seen[member[k]] and try('HMGET', J .. ulid, 'state', 'run')
    seen[member[k]] = true
    if h and (h.err or not h[2]) then
      unclear[#unclear + 1] = k
    elseif h and h[1] == 'running' and match(h[2], '^%d+') == epoch then
      stood[k], gone = true, gone - 1
    end
  end
  for k = 1, math.min(gone, #unclear) do stood[unclear[k]] = true end
  return stood
end

local function acks_of(stood, n)
  local acks = {}
  for k = 1, n do acks[k] = stood[k] and '1' or '0' end
  return table.concat(acks)
end

local acks, touched = '', {}
local watched = call('EXISTS', WATCH) == 1
if nf > 0 then
  -- `verb`: where it stands. What ends with a run: its concurrency key, '' for none, nil where that is to be looked
  -- up; its ordering and unique key, nil for none.
  local member, verb, conc, order, unique, from = {}, {}, {}, {}, {}, n_counted + 1
  local i = 11
  for k = 1, nf do
    member[k] = ARGV[i]
    i = i + 1
    local letter = ARGV[i]
    if HINTS[letter] then
      local c = ''
      if letter == 'C' then
        c = ARGV[i + 1]
      elseif letter == 'O' then
        order[k] = ARGV[i + 1]
      elseif letter == 'H' then
        order[k], c, unique[k] = ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
      end
      conc[k] = c
      if special and c ~= '' and not running[c] then
        n_counted = n_counted + 1
        running[c], counted[n_counted] = 0, c
      end
      i = i + HINTS[letter]
      letter = ARGV[i]
    end
    verb[k] = i
    i = i + 1 + words[letter]
  end
  -- To ask for each first would cost more than to take them all off: mostly all are there.
  local gone, stood = call('ZREM', LEASE, '', unpack(member)), nil
  if gone < nf then stood = which_stood(member, nf, gone) end
  acks = stood and acks_of(stood, nf) or string.rep('1', nf)
  if special then lanes.read_running(from) end
  for k = 1, nf do
    if not stood or stood[k] then
      local ulid = sub(member[k], 1, 26)
      if watched then touched[#touched + 1] = ulid end
      local v, c = verb[k], conc[k]
      local end_it = ends[ARGV[v]] or other_end(ARGV[v])
      if not special then
        end_it(ulid, J .. ulid, v + 1)
      elseif c then
        local o = order[k]
        unique_held, ended = unique[k] or '', false
        end_it(ulid, J .. ulid, v + 1)
        if c ~= '' then conc_ended(c) end
        if ended and o and o ~= '' then disown(o) end
      else
        end_run(ulid, end_it, v + 1)
      end
    else
      prove_alive(member[k])
    end
  end
else
  call('ZREM', LEASE, '')
end
if special and meta[5] ~= '@FORMAT@' then
  -- What the version before noted of running jobs stands in their hashes.
  call('HSET', KEYS[1], 'format', '@FORMAT@')
  call('UNLINK', P .. 'held')
end

local function reap_all(members)
  -- The lease of a run has ended.
  local function reap(ulid, key, epoch)
    touched[#touched + 1] = ulid
    local h = try('HMGET', key, 'run', 'cancel', 'lost', 'attempt')
    if h.err then return quarantine(ulid) end
    if not h[1] then
      ended = true
      return
    end
    local deliveries, who = match(h[1], '^%d+ (%d+) %d+ (.*)$')
    call('HSET', key, 'lost', (h[3] or ',') .. epoch .. ',')
    if h[2] then
      cancelled(ulid, key, '@CANCELLED@')
    elseif tonumber(deliveries or 0) >= poison then
      local text = 'its lease expired ' .. deliveries .. ' times, last with worker ' .. who
      bury(ulid, key, 'poisoned', '{"code":"poisoned","message":"' .. text .. '"}')
    else
      note_attempt(ulid, h[1], (h[4] or 0) + 1, now_text, 'lost', nil, false)
      front[#front + 1] = ulid
    end
  end

  for _, member in ipairs(members) do
    local ulid, epoch = sub(member, 1, 26), sub(member, 28)
    call('ZREM', LEASE, member)
    count('expired', 1)
    if special then
      end_run(ulid, reap, epoch)
    else
      reap(ulid, J .. ulid, epoch)
    end
  end
end

local reap_after = tonumber(meta[3] or 0)
if worker ~= '' and ARGV[5] == '1' and (not meta[4] or now - meta[4] >= 3 * lease_ms) then
  reap_after = now + lease_ms
  call('HSET', KEYS[1], 'graced_at', now, 'reap_after', reap_after)
end
if worker ~= '' and now >= reap_after then
  local expired = call('ZRANGEBYSCORE', LEASE, '-inf', now, 'LIMIT', 0, 100)
  if #expired > 0 then reap_all(expired) end
end
if damaged then use_lanes().use_moves().count_anew() end

for k = #front, 1, -1 do
  local key = J .. front[k]
  local priority = call('HGET', key, 'priority')
  call('HDEL', key, 'state', 'progress')
  push_waiting('RPUSH', front[k], key, priority or nil)
end

if worker ~= '' then
  local due = call('ZRANGEBYSCORE', DUE, '-inf', now, 'LIMIT', 0, 100)
  for _, ulid in ipairs(due) do
    local key = J .. ulid
    call('ZREM', DUE, ulid)
    local h = try('HMGET', key, 'priority', 'state')
    if not h.err and h[2] then
      if h[2] == 'retrying' then count('retrying', -1) end
      call('HDEL', key, 'state', 'run_at')
      push_waiting('LPUSH', ulid, key, h[1] or nil)
    end
  end
end

-- Claim. An id that is no waiting job's (cancelled: a ghost; deleted; made by hand) is passed
-- over. A damaged record is buried or handed over with kind '': it must never stop its neighbours.
local reply, leases, n_leases, got = {now, '', '', '', meta[2] or '', ''}, {}, 0, 0
local deadline = string.format('%.0f', now + lease_ms)
local first_run = '1 1 ' .. now_text .. ' ' .. worker
-- `lane`: the one it was taken from, with its ordering, concurrency and rate key, nil for none. Answers 'started', or
-- 'passed over', 'buried', or 'parked' when it has to wait, and its lane with it.
local function claim(ulid, lane, order, conc, rate)
  local key = J .. ulid
  local h = try('HMGET', key, 'state', 'kind', 'run', 'args', 'args.1', 'opts')
  if h.err then
    unique_held = ''
    quarantine(ulid)
    return 'passed over'
  end
  if h[1] or (not h[2] and call('EXISTS', key) == 0) then
    if h[1] then call('HDEL', key, 'ghost') else forget_ghost(ulid) end
    count('ghosts', -1)
    return 'passed over'
  end
  local opts, max_attempts, failures = h[6] or '', '', '0'
  local unique
  if opts ~= '' then
    local rare = call('HMGET', key, 'opts.1', 'opts.2', 'max_attempts', 'expires_at', 'unique', 'opts.3')
    unique = rare[5] and ends_hold(opts, '[sf]') and rare[5]
    unique_held = unique or ''
    if rare[4] and not h[3] and tonumber(rare[4]) <= now then
      bury(ulid, key, 'expired', '@EXPIRED@')
      return 'buried'
    end
    opts, max_attempts = opts .. (rare[1] or '') .. (rare[2] or '') .. (rare[6] or ''), rare[3] or ''
  end
  if lane then
    if order and not conc and not rate and owners[order] == false then
      own(order, ulid)
    elseif conc_most and conc and not order and not rate and (running[conc] or conc_most) < conc_most then
      running[conc] = running[conc] + 1
    elseif not start_in(lane, ulid, order, conc, rate) then
      return 'parked'
    end
  end
  -- One that took over a hold until the start after its own start holds it until its end.
  if unique and not h[3] and ends_hold(opts, 's') then
    let_go(ulid, unique)
    unique = nil
  end
  local epoch, deliveries, run = '1', '1', first_run
  if h[3] then
    local e, d = match(h[3], '^(%d+) (%d+) ')
    epoch, deliveries = (e or 0) + 1, (d or 0) + 1
    run = epoch .. ' ' .. deliveries .. ' ' .. now_text .. ' ' .. worker
    failures = call('HGET', key, 'attempt') or '0'
  end
  call('HSET', key, 'state', 'running', 'run', run)
  leases[n_leases + 1] = deadline
  leases[n_leases + 2] = h[3] and ulid .. ':' .. epoch or ulid .. ':1'
  n_leases = n_leases + 2
  local rest = special and ((conc or order) and lane or '\n') or ''
  if h[3] or opts ~= '' then
    local held = special and '\n' or '-\n'
    if conc or order or unique then held = (order or '') .. '\t' .. (conc or '') .. '\t' .. (unique or '') .. '\n' end
    rest = held .. epoch .. '\t' .. deliveries .. '\t' .. failures .. '\t' .. max_attempts .. '\t' .. opts
  end
  local args = h[4]
  if not args then
    args = call('GET', P .. 'a:' .. ulid) or ''
  elseif h[5] then
    args = args .. h[5]
    if #args == 128 then
      local rest = call('HMGET', key, 'args.2', 'args.3')
      args = args .. (rest[1] or '') .. (rest[2] or '')
    end
  end
  local n = 7 + got * 4
  reply[n], reply[n + 1], reply[n + 2], reply[n + 3] = ulid, h[2] or '', args, rest
  got = got + 1
  return 'started'
end
local looked_at, chance = 0, nil
if special then
  chance = lanes.take_turns(claim, WAIT, {want = want, rounds = rounds, paused = paused, ring_next = meta[7] == '1'})
  looked_at = chance.looked_at
else for _, round in ipairs(rounds) do
  local ending = math.min(got + round[2], want)
  while not paused and got < ending and looked_at < 256 do
    local ids = call('RPOP', WAIT[round[1]], math.min(ending - got, 256 - looked_at))
    if not ids then break end
    looked_at = looked_at + #ids
    for _, ulid in ipairs(ids) do claim(ulid) end
  end
end end
if got > 0 then call('ZADD', LEASE, unpack(leases)) end
close_lanes()

if flows then tell(told, now_text) end
push_done(done, keep)
push_dead(dead, now, keep)
if flows then reply[6] = call('ZRANGE', OUT, 0, 0, 'WITHSCORES')[2] or '' end
if successes > 0 then count('success', successes) end
for field, by in pairs(add) do
  if call('HINCRBY', STAT, field, by) < 0 then call('HSET', STAT, field, 0) end
end

if worker ~= '' and got < want then
  call('SADD', IDLE, worker)
  local due = call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
  local lease = call('ZRANGE', LEASE, 0, 0, 'WITHSCORES')
  reply[3], reply[4] = due[2] or '', lease[2] or ''
  if looked_at >= 256 and (call('EXISTS', WAIT[0], WAIT[1], WAIT[2]) > 0 or (special and lanes_wait())) then
    reply[3] = now
  elseif special then
    local at = chance.next_at()
    if at and (reply[3] == '' or at < tonumber(reply[3])) then reply[3] = at end
  end
elseif not paused and call('EXISTS', IDLE) == 1 then
  -- Jobs wait, or a due time was set or asked for that nobody idle may know.
  if call('EXISTS', WAIT[0], WAIT[1], WAIT[2]) > 0 or (special and lanes_wait())
    or ((runs_again or (worker ~= '' and want == 0)) and call('EXISTS', DUE) == 1) then
    wake(prefix)
  end
end
if watched then
  for n = 7, 6 + got * 4, 4 do touched[#touched + 1] = reply[n] end
  changed(touched)
end
if late then reply[3] = now end
reply[2] = acks
return reply
