-- Last part of a turn: what is to be sent or looked at now, and left alone by other bridges for
-- a while.
--
-- Reply: now (ms), jobs in custody, jobs that wait in the source, jobs taken, and rows of id, what
-- it became (false: not sent yet), and for those not sent what is held and what the source adds.
local rows = {}
local due = redis.call('ZRANGEBYSCORE', open, '-inf', now + 1, 'LIMIT', 0, ARGV[2])
for i, id in ipairs(due) do
  local row = {id, redis.call('HGET', jobs, id), false, false, false, false, false}
  if not row[2] then
    row[3] = redis.call('HGET', held, id)
    if more then more(id, row) end
  end
  rows[i] = row
end
if #due > 0 then
  -- Never refused for want of memory, and so nothing behind it is.
  redis.call('ZREM', open, unpack(due))
  for _, id in ipairs(due) do redis.call('ZADD', open, now + ARGV[3], id) end
end
return {now, redis.call('ZCARD', open), waiting, taken, rows}
