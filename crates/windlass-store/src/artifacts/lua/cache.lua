-- Results, artifacts and uploads, with the index that bounds them.
--
-- KEYS[1]  the base; every other key is made from it and shares its hash tag
-- ARGV     verb, cap of results and artifacts (bytes), quota of uploads (bytes), artifact ttl (ms),
--          upload ttl (ms), and the verb's words:
--   keep temp name class bytes → 'kept', 'known', 'large', 'gone', or {'full', bytes in use}. class is a
--                                (artifact) or u (upload); the bytes lie in the key temp, which is
--                                gone afterwards
--   touch name ...             → size per name, -1 where it is not there (at most 250)
--   pin job check name ...     → 1 per name, 0 where it is not there (at most 250)
--   release job                → how many are left to let go (250 a call)
--   due max check              → jobs
--   tidy                       → how many went, at most 100
--   put name json ttl          → 'kept' or 'large'
--   get name                   → json or nil
--   forget name                → OK
--   clear                      → how many went, at most 250
--   lead name token ttl        → {1, 0}, or {0, ms since another one has it}
--   let_go name token          → OK
--   stats                      → {field, value, ...}
-- Memory   the first write of every verb but keep and put is one that Redis never refuses
-- Cost     O(names) and O(log n) each; a keep or put evicts at most 250
local B = KEYS[1]
local META, EXP, STAT, JOBS = B .. ':meta', B .. ':exp', B .. ':stat', B .. ':jobs'
local LRU = {a = B .. ':lru:a', r = B .. ':lru:r'}
local verb, cap, quota = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local TTL = {a = tonumber(ARGV[4]), u = tonumber(ARGV[5])}
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
-- In µs, so that uses in one ms keep their order; as text, since Lua's own is exact to 14 digits.
local moment = string.format('%.0f', t[1] * 1000000 + t[2])

local function data(name) return B .. ':d:' .. name end

-- Class, bytes and how many jobs hold it.
local function entry(name)
  local m = redis.call('HGET', META, name)
  if not m then return nil end
  local c, b, r = string.match(m, '^(%a):(%d+):(%d+)$')
  return c, tonumber(b), tonumber(r)
end

local function set(name, c, b, r) redis.call('HSET', META, name, c .. ':' .. b .. ':' .. r) end

local function sum(c, entries, bytes)
  redis.call('HINCRBY', STAT, 'n_' .. c, entries)
  redis.call('HINCRBY', STAT, 'b_' .. c, bytes)
end

local function used(c) return tonumber(redis.call('HGET', STAT, 'b_' .. c) or 0) end

local function forget(name, c, b)
  redis.call('UNLINK', data(name))
  redis.call('HDEL', META, name)
  redis.call('ZREM', EXP, name)
  if LRU[c] then redis.call('ZREM', LRU[c], name) end
  sum(c, -1, -b)
end

-- Nobody holds it, and it was used now. Redis drops the bytes a minute after the index would.
local function idle(name, c, ttl)
  redis.call('ZADD', EXP, now + ttl, name)
  if LRU[c] then redis.call('ZADD', LRU[c], moment, name) end
  redis.call('PEXPIRE', data(name), ttl + 60000)
end

-- The entry, kept longer; nil when it or its bytes are gone.
local function use(name)
  local c, b, r = entry(name)
  if not c then return nil end
  if redis.call('EXISTS', data(name)) == 0 then
    forget(name, c, b)
    return nil
  end
  if r == 0 then idle(name, c, TTL[c]) end
  return c, b, r
end

local function tidy(max)
  local names = redis.call('ZRANGEBYSCORE', EXP, '-inf', now, 'LIMIT', 0, max)
  for _, name in ipairs(names) do
    local c, b = entry(name)
    if c then forget(name, c, b) else redis.call('ZREM', EXP, name) end
  end
  return #names
end

-- Makes room for need bytes: of results and artifacts, what was used longest ago goes first.
local function make_room(need)
  local have, gone = used('a') + used('r'), 0
  while have + need > cap and gone < 250 do
    local a = redis.call('ZRANGE', LRU.a, 0, 0, 'WITHSCORES')
    local r = redis.call('ZRANGE', LRU.r, 0, 0, 'WITHSCORES')
    local name, list = a[1], LRU.a
    if not name or (r[1] and tonumber(r[2]) < tonumber(a[2])) then name, list = r[1], LRU.r end
    if not name then break end
    local c, b = entry(name)
    if c then
      forget(name, c, b)
      have = have - b
    else
      redis.call('ZREM', list, name)
    end
    gone = gone + 1
  end
  if gone > 0 then redis.call('HINCRBY', STAT, 'evictions', gone) end
end

local verbs = {}

function verbs.keep()
  local temp, name, class, bytes = ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
  tidy(50)
  if redis.call('EXISTS', temp) == 0 then return 'gone' end
  local c, b, r = use(name)
  if c == 'u' or (c and class == 'a') then
    redis.call('UNLINK', temp)
    return 'known'
  end
  if class == 'u' and used('u') + bytes > quota then
    redis.call('UNLINK', temp)
    return {'full', used('u')}
  end
  if class == 'a' and bytes > cap then
    redis.call('UNLINK', temp)
    return 'large'
  end
  local holders = 0
  if c then -- an artifact that is uploaded: it goes by its age alone from now on
    holders = r
    redis.call('ZREM', LRU.a, name)
    sum('a', -1, -b)
  elseif class == 'a' then
    make_room(bytes)
  end
  redis.call('RENAME', temp, data(name))
  redis.call('PERSIST', data(name))
  set(name, class, bytes, holders)
  sum(class, 1, bytes)
  if holders == 0 then idle(name, class, TTL[class]) end
  return 'kept'
end

function verbs.touch()
  redis.call('ZREM', EXP, '')
  local sizes = {}
  for i = 6, #ARGV do
    local _, b = use(ARGV[i])
    sizes[#sizes + 1] = b or -1
  end
  return sizes
end

function verbs.pin()
  redis.call('ZREM', EXP, '')
  local job, held, any = ARGV[6], {}, false
  local list = B .. ':job:' .. job
  for i = 8, #ARGV do
    local name = ARGV[i]
    local c, b, r = use(name)
    if c then
      any = true
      if redis.call('SADD', list, name) == 1 then
        set(name, c, b, r + 1)
        redis.call('ZREM', EXP, name)
        if LRU[c] then redis.call('ZREM', LRU[c], name) end
        redis.call('PERSIST', data(name))
      end
    end
    held[#held + 1] = c and 1 or 0
  end
  if any then redis.call('ZADD', JOBS, now + tonumber(ARGV[7]), job) end
  return held
end

function verbs.release()
  local job = ARGV[6]
  local list = B .. ':job:' .. job
  for _, name in ipairs(redis.call('SPOP', list, 250)) do
    local c, b, r = entry(name)
    if c then
      set(name, c, b, math.max(r - 1, 0))
      if r <= 1 then idle(name, c, TTL[c]) end
    end
  end
  local left = redis.call('SCARD', list)
  if left == 0 then redis.call('ZREM', JOBS, job) end
  return left
end

function verbs.due()
  redis.call('ZREM', JOBS, '')
  local jobs = redis.call('ZRANGEBYSCORE', JOBS, '-inf', now, 'LIMIT', 0, ARGV[6])
  for _, job in ipairs(jobs) do redis.call('ZADD', JOBS, now + tonumber(ARGV[7]), job) end
  return jobs
end

function verbs.tidy() return tidy(100) end

function verbs.put()
  local name, json, ttl = ARGV[6], ARGV[7], tonumber(ARGV[8])
  if #json > cap then return 'large' end
  tidy(50)
  local c, b = entry(name)
  if c then forget(name, c, b) end
  make_room(#json)
  redis.call('SET', data(name), json, 'PX', ttl)
  set(name, 'r', #json, 0)
  sum('r', 1, #json)
  redis.call('ZADD', EXP, now + ttl, name)
  redis.call('ZADD', LRU.r, moment, name)
  return 'kept'
end

function verbs.get()
  local name = ARGV[6]
  local json = redis.call('GET', data(name))
  redis.call('ZREM', EXP, '')
  if not json then
    local c, b = entry(name)
    if c then forget(name, c, b) end
    return nil
  end
  redis.call('ZADD', LRU.r, 'XX', moment, name)
  redis.call('HINCRBY', STAT, 'hits', 1)
  return json
end

function verbs.forget()
  redis.call('ZREM', EXP, '')
  local c, b = entry(ARGV[6])
  if c then forget(ARGV[6], c, b) end
  redis.call('HINCRBY', STAT, 'hits', -1)
  return redis.status_reply('OK')
end

function verbs.clear()
  local names = redis.call('ZRANGE', LRU.r, 0, 249)
  for _, name in ipairs(names) do
    local c, b = entry(name)
    if c then forget(name, c, b) else redis.call('ZREM', LRU.r, name) end
  end
  return #names
end

function verbs.lead()
  local key, token, ttl = B .. ':f:' .. ARGV[6], ARGV[7], ARGV[8]
  redis.call('ZREM', EXP, '')
  local held = redis.call('GET', key)
  if held then
    local since, holder = string.match(held, '^(%d+) (.*)$')
    if holder ~= token then return {0, now - tonumber(since)} end
    redis.call('PEXPIRE', key, ttl)
    return {1, 0}
  end
  redis.call('SET', key, string.format('%.0f', now) .. ' ' .. token, 'PX', ttl)
  redis.call('HINCRBY', STAT, 'misses', 1)
  return {1, 0}
end

function verbs.let_go()
  local key = B .. ':f:' .. ARGV[6]
  local held = redis.call('GET', key)
  if held and string.match(held, '^%d+ (.*)$') == ARGV[7] then redis.call('UNLINK', key) end
  return redis.status_reply('OK')
end

function verbs.stats()
  local oldest
  for _, list in pairs(LRU) do
    local head = redis.call('ZRANGE', list, 0, 0, 'WITHSCORES')
    if head[1] and (not oldest or tonumber(head[2]) < oldest) then oldest = tonumber(head[2]) end
  end
  local out = redis.call('HGETALL', STAT)
  out[#out + 1] = 'oldest'
  out[#out + 1] = string.format('%.0f', (oldest or 0) / 1000)
  out[#out + 1] = 'jobs'
  out[#out + 1] = tostring(redis.call('ZCARD', JOBS))
  return out
end

return verbs[verb]()
