-- Adds to a number.
--
-- KEYS[1]  string
-- ARGV     by, ttl (ms) of a number that was not there
-- Reply    {1, value, ms left}, or {0} when the value is no whole number or would overflow
-- Cost     O(1)
local value = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(value) == 'table' and value.err then
  if string.find(value.err, 'not an integer', 1, true) or string.find(value.err, 'overflow', 1, true)
    or string.find(value.err, 'WRONGTYPE', 1, true) then
    return {0}
  end
  return value
end
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {1, redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}
