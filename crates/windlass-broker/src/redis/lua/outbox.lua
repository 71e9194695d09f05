-- What the queue has to say to others.
--
-- KEYS[1]  the queue's meta key
-- ARGV     none: reads. Else: later ms, number of messages to take off, those, then those to put
--          off until `later`
-- Reply    reading: now, then at most 100 messages that are due; else OK
-- Cost     one command, or two
if #ARGV == 0 then
  local t = call('TIME')
  local now = t[1] * 1000 + math.floor(t[2] / 1000)
  return {now, unpack(call('ZRANGEBYSCORE', P .. 'out', '-inf', string.format('%.0f', now), 'LIMIT', 0, 100))}
end
local done = tonumber(ARGV[2])
call('ZREM', P .. 'out', '', unpack(ARGV, 3, 2 + done))
for k = 3 + done, #ARGV do call('ZADD', P .. 'out', 'XX', ARGV[1], ARGV[k]) end
return redis.status_reply('OK')
