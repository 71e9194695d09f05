-- First part of a turn: the clock, the bridge's own keys, and how many jobs may be taken.
--
-- A job in the bridge's custody is a member of `open` (zset: when it is looked at next, in ms), or
-- of `later`, the same for those that may not run for a while: they are many, and need few looks. Until the queue has it, `held` (hash) keeps what is needed to send it; from then on `jobs`
-- (hash) says which job it became. Everything lies beside the source, in its slot.
--
-- KEYS[1] a key of the source, for the slot. ARGV: 1 most taken, 2 most looked at, 3 for how long
-- other bridges leave them alone (ms), 4 prefix of the bridge's keys; the rest is the source's.
-- Cost: O(taken + looked at), each with a logarithm.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local open, later = ARGV[4] .. ':open', ARGV[4] .. ':later'
local jobs, held = ARGV[4] .. ':jobs', ARGV[4] .. ':held'
local most = tonumber(ARGV[1])
-- Looks that are behind slow the taking down, and do not end it.
if redis.call('ZCOUNT', open, '-inf', now) >= tonumber(ARGV[2]) then most = math.floor(most / 4) end
local taken, waiting, more = 0, 0, nil
local function take(id, value)
  taken = taken + 1
  redis.call('HSET', held, id, value)
  -- A fraction of a ms keeps their order.
  redis.call('ZADD', open, now + taken / 1000, id)
end
