-- wake(channel_prefix): tells one idle worker to ask this queue again. Whoever is told and has
-- no free slot, or leaves jobs over, passes it on. A worker that nobody listens for is dropped
-- from the set and the next one told. Cost: 2 commands per worker told, at most @TOLD@ of them (in a
-- cluster, where the reply counts the listeners of one node only, 3).
local QUEUE = match(KEYS[1], '{(.-)}')
local function wake(prefix)
  for _ = 1, @TOLD@ do
    local worker = call('SPOP', IDLE)
    if not worker then return end
    if call('PUBLISH', prefix .. worker, QUEUE) > 0 then return end
  end
end

-- changed(ulids): says on the queue's channel which of these jobs are watched. Those that have
-- ended are then watched no longer. Cost: one EXISTS where nobody watches.
local function changed(ulids)
  if #ulids == 0 or call('EXISTS', WATCH) == 0 then return end
  local watched = call('SMISMEMBER', WATCH, unpack(ulids))
  for k, ulid in ipairs(ulids) do
    if watched[k] == 1 then
      call('PUBLISH', P .. 'watched', ulid)
      local h = redis.pcall('HMGET', J .. ulid, 'kind', 'finished_at')
      if h.err or h[2] or not h[1] then call('SREM', WATCH, ulid) end
    end
  end
end

-- use(feature): notes that the queue uses what an older version would not heed, and that it is to
-- be left alone by such. Answers '1'.
local function use(feature)
  local is_first = call('HSET', KEYS[1], feature, 1) == 1
  call('HSET', KEYS[1], 'format', @FORMAT@)
  if is_first and feature == 'special' then call('HSET', KEYS[1], 'alone', 1) end
  return '1'
end

-- check_format(format): refuses a queue that a newer version wrote.
local function check_format(format)
  if format and tonumber(format) > @FORMAT@ then
    return redis.error_reply('FORMAT queue ' .. QUEUE .. ' has format ' .. format .. ', this version reads @FORMAT@')
  end
end
