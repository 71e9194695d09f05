-- Makes an image of blobs that were set before.
--
-- KEYS[1] stat. ARGV: 1 id, 2 sha, 3 bytes, 4 thumb's sha or '', 5 its bytes, 6 created ms or
-- 0 for now, 7 age ms, 8 TTL beyond it ms, 9 bytes of all images at most, 10 evict policy,
-- 11 symbol as keys have it, 12 spec or '', 13 the store's own age ms, 14… further fields.
-- Reply: {'ok', created ms, expires ms, evicted, freed bytes}; {'again'} when a blob has
-- expired meanwhile; {'old'} when the image's time is over. A known id changes nothing and is
-- 'ok'. Everything is atomic. Cost: O(log n), and at most 64 images evicted and 16 expired.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local id, sha, bytes, thumb, thumb_bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local known = redis.call('HMGET', M..id, 'created_at', 'expires_at')
if known[1] then return {'ok', known[1], known[2], 0, 0} end
local created = tonumber(ARGV[6])
if created <= 0 or created > now then created = now end
local expires = created + tonumber(ARGV[7])
if expires <= now then return {'old'} end
if redis.call('EXISTS', B..sha) == 0 then return {'again'} end
if thumb ~= '' and redis.call('EXISTS', B..thumb) == 0 then return {'again'} end
local ttl = expires - now + tonumber(ARGV[8])
local function hold(digest, size)
  local first = redis.call('HINCRBY', REFS, digest, 1) == 1
  if first then redis.call('HINCRBY', STAT, 'bytes', string.format('%d', size)) end
  if redis.call('PTTL', B..digest) < ttl or first then redis.call('PEXPIRE', B..digest, ttl) end
  return first
end
local text = function(n) return string.format('%d', n) end
redis.call('HSET', M..id, 'sha', sha, 'bytes', ARGV[3], 'thumb', thumb, 'thumb_bytes', ARGV[5],
  'created_at', text(created), 'expires_at', text(expires), 'sym', ARGV[11], 'spec', ARGV[12], unpack(ARGV, 14))
redis.call('PEXPIRE', M..id, ttl)
if not hold(sha, bytes) then redis.call('HINCRBY', STAT, 'dedup', 1) end
if thumb ~= '' then hold(thumb, thumb_bytes) end
redis.call('ZADD', AGE, text(created), id)
redis.call('ZADD', SIZE, text(bytes + thumb_bytes), id)
redis.call('ZADD', SYM..ARGV[11], text(created), id)
redis.call('PEXPIRE', SYM..ARGV[11], tonumber(ARGV[13]) + tonumber(ARGV[8]))
if tonumber(ARGV[7]) < tonumber(ARGV[13]) then redis.call('ZADD', EXP, text(expires), id) end
if ARGV[10] == 'lru' then redis.call('ZADD', USE, text(now), id) end
if ARGV[12] ~= '' then redis.call('SET', SPEC..ARGV[12], id, 'PX', text(expires - now)) end
redis.call('HINCRBY', STAT, 'created_sum', text(created))
redis.call('HINCRBY', STAT, 'puts', 1)
local freed = 0
for _, old in ipairs(redis.call('ZRANGEBYSCORE', EXP, '-inf', text(now), 'LIMIT', 0, 16)) do
  freed = freed + (drop(old) or 0)
  redis.call('HINCRBY', STAT, 'evicted_age', 1)
end
local evicted = 0
local function victim()
  local from, first = AGE, 'ZRANGE'
  if ARGV[10] == 'lru' then from = USE elseif ARGV[10] == 'largest' then from, first = SIZE, 'ZREVRANGE' end
  for _, other in ipairs(redis.call(first, from, 0, 1)) do
    if other ~= id then return other end
  end
  for _, other in ipairs(redis.call('ZRANGE', AGE, 0, 1)) do
    if other ~= id then return other end
  end
end
while evicted < 64 and tonumber(redis.call('HGET', STAT, 'bytes')) > tonumber(ARGV[9]) do
  local other = victim()
  if not other then break end
  freed = freed + (drop(other) or 0)
  evicted = evicted + 1
end
if evicted > 0 then redis.call('HINCRBY', STAT, 'evicted_size', evicted) end
return {'ok', text(created), text(expires), evicted, freed}
