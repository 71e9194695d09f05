-- Takes images away by id.
--
-- KEYS[1] stat. ARGV: 1 the counter to raise, or ''; 2… ids, at most 100.
-- Reply: {images, freed bytes}; ids without metadata leave the indexes and do not count.
-- Cost: O(log n) an id.
local images, freed = 0, 0
for i = 2, #ARGV do
  local bytes = drop(ARGV[i])
  if bytes then images = images + 1; freed = freed + bytes end
end
if images > 0 and ARGV[1] ~= '' then redis.call('HINCRBY', STAT, ARGV[1], images) end
return {images, freed}
