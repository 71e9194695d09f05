-- The jobs of a list that a filter wants.
--
-- KEYS[1]  the queue's meta key
-- ARGV     list (a state or 'parked'), first entry (from 0), number of entries (1 to 500), jobs
--          wanted at most, state, kind ('' any), then field and value of each label
-- Reply    length of the whole list, entries read (up to the last job wanted), then their ids
-- Cost     that of `entries`; one HMGET per entry read
local found = entries(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
local most, state, kind = tonumber(ARGV[4]), ARGV[5], ARGV[6]
local fields = {'state', 'kind'}
for k = 7, #ARGV, 2 do fields[#fields + 1] = ARGV[k] end
local function state_of(word)
  if word == 'blocked' then return 'scheduled' end
  return word or 'pending'
end
local function wanted(h)
  if h.err or not h[2] or state_of(h[1]) ~= state or (kind ~= '' and h[2] ~= kind) then return false end
  for k = 3, #fields do
    if h[k] ~= ARGV[2 + 2 * k] then return false end
  end
  return true
end
local reply = {found[1], 0}
for k = 3, #found do
  if #reply - 2 == most then break end
  local ulid = sub(found[k], 1, 26)
  reply[2] = k - 2
  if wanted(redis.pcall('HMGET', J .. ulid, unpack(fields))) then reply[#reply + 1] = ulid end
end
return reply
