-- Shared: takes images away. Not a script of its own.
--
-- `forget(sha, bytes)` gives one hold on a blob up; the last one ends it. `drop(id)` takes an
-- image out of every index and answers its bytes that nothing holds any more, or nil when its
-- metadata has expired: then only the indexes are mended, and `images verify` recounts.
-- The first write is one that Redis never refuses for memory. Cost: O(log n) an image.
local function forget(sha, bytes)
  if redis.call('HINCRBY', REFS, sha, -1) > 0 then return 0 end
  redis.call('HDEL', REFS, sha)
  redis.call('UNLINK', B..sha)
  redis.call('HINCRBY', STAT, 'bytes', -bytes)
  return bytes
end
local function drop(id)
  local created = redis.call('ZSCORE', AGE, id)
  redis.call('ZREM', AGE, id)
  redis.call('ZREM', EXP, id)
  redis.call('ZREM', SIZE, id)
  redis.call('ZREM', USE, id)
  if created then redis.call('HINCRBY', STAT, 'created_sum', string.format('%d', -created)) end
  local m = redis.call('HMGET', M..id, 'sha', 'bytes', 'thumb', 'thumb_bytes', 'sym', 'spec')
  if not m[1] then return nil end
  redis.call('UNLINK', M..id)
  redis.call('ZREM', SYM..m[5], id)
  if m[6] and m[6] ~= '' and redis.call('GET', SPEC..m[6]) == id then redis.call('UNLINK', SPEC..m[6]) end
  local freed = forget(m[1], tonumber(m[2]))
  if m[3] and m[3] ~= '' then freed = freed + forget(m[3], tonumber(m[4])) end
  return freed
end
