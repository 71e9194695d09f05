-- Unique keys at enqueue.
--
-- `u:<key>` holds '<ulid> <held until ms>'; Redis forgets it a second after that.

-- What of a job stays when another takes its place in the queue.
local STAYS = {created_at = true, state = true, priority = true, run = true, run_at = true, attempt = true,
  lost = true, unknown_since = true, progress = true, tenant = true, order = true, conc = true, rate = true}

local function replace(ulid, key, args, expires, first, last)
  local words, named = {}, {}
  for i = first, last, 2 do
    if not STAYS[ARGV[i]] then
      named[ARGV[i]] = true
      words[#words + 1], words[#words + 2] = ARGV[i], ARGV[i + 1]
    end
  end
  if expires then
    named.expires_at = true
    words[#words + 1], words[#words + 2] = 'expires_at', expires
  end
  call('HSET', key, unpack(words))
  for _, field in ipairs(call('HKEYS', key)) do
    if not STAYS[field] and not named[field] then call('HDEL', key, field) end
  end
  if args == '' then call('DEL', P .. 'a:' .. ulid) else call('SET', P .. 'a:' .. ulid, args) end
end

local function hold(ukey, ulid, until_ms, ttl)
  local px = string.format('%.0f', ttl + 1000)
  call('SET', P .. 'u:' .. ukey, ulid .. string.format(' %.0f', until_ms), 'PX', px)
end

-- Answers nil when the key is free, else its holder, whether that took over the new job's kind,
-- args and options, and whether its time was moved.
local function clash(unique, parents, now, wish, args, expires, first, last)
  local held = call('GET', P .. 'u:' .. unique.key)
  if not held then return end
  local holder, until_ms = match(held, '^(%S+) (%d+)$')
  if not holder or tonumber(until_ms) <= now then return end
  local key = J .. holder
  local h = redis.pcall('HMGET', key, 'state', 'created_at', 'opts')
  if h.err or not h[2] then return holder end
  local replaced, moved = false, false
  if unique.replaces and not parents and not string.find(h[3] or '', 'after=', 1, true) and (not h[1] or h[1] == 'scheduled' or h[1] == 'retrying') then
    replace(holder, key, args, expires, first, last)
    replaced = true
  end
  if unique.most and h[1] == 'scheduled' then
    local at = string.format('%.0f', math.min(math.max(wish, now), h[2] + unique.most))
    call('HSET', key, 'run_at', at)
    call('ZADD', DUE, at, holder)
    moved = true
  end
  if replaced or moved then hold(unique.key, holder, now + unique.ttl, unique.ttl) end
  return holder, replaced, moved
end
