-- The catalogue of kinds. Reads, or writes what a worker publishes.
--
-- KEYS[1]  the hash of kinds, name → '<version> <JSON>'; the sorted set of when each was seen
--          lies beside it
-- ARGV     none: list. Else: keep ms, newer counts for ms, most kinds; then name, version, JSON
--          per kind
-- Reply    list: now, then seen ms, JSON per kind; else OK
-- Cost     O(kinds), at most 500
local SEEN = KEYS[1] .. '_seen'
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if #ARGV == 0 then
  local reply = {now}
  local seen = redis.call('ZRANGE', SEEN, 0, -1, 'WITHSCORES')
  for k = 1, #seen, 2 do
    local kept = redis.call('HGET', KEYS[1], seen[k])
    reply[#reply + 1] = seen[k + 1]
    reply[#reply + 1] = kept and string.match(kept, '^%d+ (.*)$') or ''
  end
  return reply
end
-- First a write that is never refused for memory.
redis.call('ZREM', SEEN, '')
local keep, newer, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for k = 4, #ARGV, 3 do
  local name, version = ARGV[k], tonumber(ARGV[k + 1])
  local kept = redis.call('HGET', KEYS[1], name)
  local kept_version = kept and tonumber(string.match(kept, '^(%d+) ')) or -1
  local seen = tonumber(redis.call('ZSCORE', SEEN, name) or 0)
  if version >= kept_version or now - seen > newer then
    redis.call('HSET', KEYS[1], name, ARGV[k + 1] .. ' ' .. ARGV[k + 2])
    redis.call('ZADD', SEEN, now, name)
  end
end
local gone = redis.call('ZRANGEBYSCORE', SEEN, '-inf', now - keep, 'LIMIT', 0, 100)
local over = redis.call('ZCARD', SEEN) - #gone - most
if over > 0 then
  for _, name in ipairs(redis.call('ZRANGE', SEEN, #gone, #gone + math.min(over, 100) - 1)) do
    gone[#gone + 1] = name
  end
end
if #gone > 0 then
  redis.call('ZREM', SEEN, unpack(gone))
  redis.call('HDEL', KEYS[1], unpack(gone))
end
return redis.status_reply('OK')
