-- Reads one job.
--
-- KEYS[1]  the queue's meta key
-- ARGV     ulid
-- Reply    false when unknown, 'damaged' when its key is no hash, else
--          {fields and values, args or false, result or false, error or false, ids of the jobs it
--          depends on or false, number of those that have not ended, ids of those that depend on it}
-- Cost     5 reads, 8 in a queue where some wait for others
local h = redis.pcall('HGETALL', J .. ARGV[1])
if h.err then return 'damaged' end
if #h == 0 then return false end
local u = ARGV[1]
local reply = {h, call('GET', P .. 'a:' .. u), call('GET', P .. 'r:' .. u), call('GET', P .. 'e:' .. u)}
if call('HGET', KEYS[1], 'flows') then
  reply[5], reply[6] = call('GET', P .. 'w:' .. u), call('SCARD', P .. 'g:' .. u)
  reply[7] = call('SMEMBERS', P .. 'd:' .. u)
end
return reply
