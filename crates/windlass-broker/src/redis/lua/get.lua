-- Reads one job.
--
-- KEYS[1]  the queue's meta key
-- ARGV     ulid
-- Reply    false when unknown, 'damaged' when its key is no hash, else
--          {fields and values, args or false, result or false, error or false}
-- Cost     4 reads
local h = redis.pcall('HGETALL', J .. ARGV[1])
if h.err then return 'damaged' end
if #h == 0 then return false end
return {h, redis.call('GET', P .. 'a:' .. ARGV[1]), redis.call('GET', P .. 'r:' .. ARGV[1]), redis.call('GET', P .. 'e:' .. ARGV[1])}
