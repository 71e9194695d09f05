-- One page of the jobs in a state.
--
-- KEYS[1]  the queue's meta key
-- ARGV     state, first entry (from 0), number of entries (1 to 500)
-- Reply    length of the whole list, entries read, then the ids of those that are what the list
--          says (of running jobs '<ulid>:<epoch>')
-- Cost     that of `entries`; one HGET per entry of the list of waiting jobs
local found = entries(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
if ARGV[1] ~= 'pending' then return found end
local reply = {found[1], found[2]}
for k = 3, #found do
  local h = redis.pcall('HMGET', J .. found[k], 'state', 'created_at')
  if not h.err and not h[1] and h[2] then reply[#reply + 1] = found[k] end
end
return reply
