-- Takes a slice of the images whose time is over away, then of those above the bytes allowed.
--
-- KEYS[1] stat. ARGV: 1 the store's own age ms, 2 images at most, 3 bytes of all images at
-- most, 4 evict policy. Reply: {images, freed bytes, 1 when there may be more}.
-- Cost: O(log n) an image; any number of sweepers may run at once.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit = tonumber(ARGV[2])
local images, freed = 0, 0
local function sweep(ids, counter)
  for _, id in ipairs(ids) do
    freed = freed + (drop(id) or 0)
    images = images + 1
  end
  if #ids > 0 then redis.call('HINCRBY', STAT, counter, #ids) end
end
sweep(redis.call('ZRANGEBYSCORE', EXP, '-inf', string.format('%d', now), 'LIMIT', 0, limit), 'evicted_age')
local cutoff = string.format('%d', now - tonumber(ARGV[1]))
sweep(redis.call('ZRANGEBYSCORE', AGE, '-inf', cutoff, 'LIMIT', 0, math.max(limit - images, 0)), 'evicted_age')
while images < limit and tonumber(redis.call('HGET', STAT, 'bytes') or '0') > tonumber(ARGV[3]) do
  local ids
  if ARGV[4] == 'largest' then ids = redis.call('ZREVRANGE', SIZE, 0, 0)
  elseif ARGV[4] == 'lru' then ids = redis.call('ZRANGE', USE, 0, 0) end
  if not ids or #ids == 0 then ids = redis.call('ZRANGE', AGE, 0, 0) end
  if #ids == 0 then break end
  sweep(ids, 'evicted_size')
end
return {images, freed, images >= limit and 1 or 0}
