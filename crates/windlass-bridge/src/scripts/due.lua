-- Last part of a turn: what is to be sent or looked at now, and left alone by other bridges for
-- a while.
--
-- Reply: now (ms), jobs in `open`, jobs in `later`, jobs that wait in the source, 1 when more may be
-- due, and rows of id, what it became (false: not sent yet), and for those not sent what is
-- held and what the source adds.
local rows = {}
local function due(set, n)
  local ids = redis.call('ZRANGEBYSCORE', set, '-inf', now + 1, 'LIMIT', 0, n)
  for _, id in ipairs(ids) do
    local row = {id, redis.call('HGET', jobs, id), false, false, false, false, false}
    if not row[2] then
      row[3] = redis.call('HGET', held, id)
      if more then more(id, row) end
    end
    rows[#rows + 1] = row
  end
  if #ids > 0 then
    -- Never refused for want of memory, and so nothing behind it is.
    redis.call('ZREM', set, unpack(ids))
    for _, id in ipairs(ids) do redis.call('ZADD', set, now + ARGV[3], id) end
  end
  return #ids == n
end
-- Neither set holds the other up.
local few = math.floor(ARGV[2] / 4)
local is_full = due(later, few)
is_full = due(open, ARGV[2] - #rows) or is_full or most > 0 and taken == most
local count = redis.call('ZCARD', open)
return {now, count, redis.call('ZCARD', later), waiting, is_full and 1 or 0, rows}
