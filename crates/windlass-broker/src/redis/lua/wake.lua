-- wake(channel_prefix): tells one idle worker to ask this queue again. Whoever is told and has
-- no free slot, or leaves jobs over, passes it on. A worker that nobody listens for is dropped
-- from the set and the next one told. Cost: 2 commands per worker told, at most 64 of them.
local QUEUE = string.match(KEYS[1], '{(.-)}')
local function wake(prefix)
  for _ = 1, 64 do
    local worker = redis.call('SPOP', IDLE)
    if not worker then return end
    if redis.call('PUBLISH', prefix .. worker, QUEUE) > 0 then return end
  end
end
