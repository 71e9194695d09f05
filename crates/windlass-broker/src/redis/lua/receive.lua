-- Hears what other queues have to say about jobs that wait for others.
--
-- KEYS[1]  the queue's meta key
-- ARGV     wake channel prefix, terminal jobs kept per list, then per message (at most 100): 'w'
--          and the parent's ulid, the id of the job that waits, ''; or 'e', the ulid of the job
--          that waits, the parent's id, how it ended (s, f, c, u)
-- Reply    now, then a letter per message as one string: 'n' noted, or how the parent has ended
-- Memory   first write a ZREM, so that it passes when Redis is full
-- Cost     HMGET, 2 writes per message; about 8 commands per job that goes on
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local now_text = string.format('%.0f', now)
lane_now = now
local meta = call('HMGET', KEYS[1], 'format', 'flows', 'paused')
local wrong = check_format(meta[1])
if wrong then return wrong end
call('ZREM', LEASE, '')
local ENDED = {success = 's', failure = 'f', cancelled = 'c'}
local WHAT = {s = 'has ended', f = 'ended in failure', c = 'was cancelled', u = 'is not known'}
local done, ended, gone_on, heard = {}, {}, {}, {}
local any_ended = false

-- Whoever waits for what has just ended is told, before more are known to wait for it: those hear
-- of it by their answer.
local function tell_of_ends()
  if #ended == 0 then return end
  tell(ended, now_text)
  ended, any_ended = {}, true
end

-- A parent is told who waits for it.
local function note_child(ulid, child)
  local h = redis.pcall('HMGET', J .. ulid, 'state', 'created_at')
  if h.err or not h[2] then return 'u' end
  call('SADD', P .. 'd:' .. ulid, child)
  call('SADD', PARENTS, ulid)
  if not meta[2] then meta[2] = use('flows') end
  return ENDED[h[1]] or 'n'
end

local function cancelled(ulid, key, h, parent, letter)
  if h[4] and ends_hold(h[3], '[sf]') then let_go(ulid, h[4]) end
  call('DEL', P .. 'g:' .. ulid)
  call('HDEL', key, 'run_at')
  call('HSET', key, 'state', 'cancelled', 'finished_at', now_text)
  call('SET', P .. 'e:' .. ulid, '{"code":"dependency","message":"' .. parent .. ' ' .. WHAT[letter] .. '"}')
  call('HINCRBY', STAT, 'cancelled', 1)
  done[#done + 1] = ulid
  ended[#ended + 1], ended[#ended + 2] = ulid, 'c'
end

local function parent_ended(ulid, parent, letter)
  local key = J .. ulid
  local h = redis.pcall('HMGET', key, 'state', 'priority', 'opts', 'unique', 'run_at')
  if h.err or h[1] ~= 'blocked' or call('SREM', P .. 'g:' .. ulid, parent) == 0 then return end
  local cancels = letter ~= 's' and not string.find(h[3] or '', 'after=r', 1, true)
  if not cancels and call('EXISTS', P .. 'g:' .. ulid) == 1 then return end
  call('ZREM', BLOCKED, ulid)
  if cancels then
    cancelled(ulid, key, h, parent, letter)
  elseif h[5] and tonumber(h[5]) > now then
    call('HSET', key, 'state', 'scheduled')
    call('ZADD', DUE, h[5], ulid)
  else
    call('HDEL', key, 'state', 'run_at')
    push_waiting('LPUSH', ulid, key, h[2] or nil)
  end
  gone_on[#gone_on + 1] = ulid
end

for k = 3, #ARGV, 4 do
  if ARGV[k] == 'w' then
    tell_of_ends()
    heard[#heard + 1] = note_child(ARGV[k + 1], ARGV[k + 2])
  else
    parent_ended(ARGV[k + 1], ARGV[k + 2], ARGV[k + 3])
    heard[#heard + 1] = 'n'
  end
end
close_lanes()
tell_of_ends()
push_done(done, tonumber(ARGV[2]))
if #gone_on > 0 then
  if meta[3] ~= '1' or any_ended then wake(ARGV[1]) end
  changed(gone_on)
end
return {now, table.concat(heard)}
