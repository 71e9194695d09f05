-- Jobs that wait for others; see `windlass_jobs::flow`.
local BLOCKED, PARENTS, OUT = P .. 'blocked', P .. 'parents', P .. 'out'

-- tell(ended, now): writes for whom these jobs, {ulid, letter, ...}, had to end into the outbox;
-- answers whether anybody waits. Cost: SMISMEMBER per batch, SMEMBERS and ZADD per parent.
local function tell(ended, now)
  if #ended == 0 then return false end
  local ulids, any = {}, false
  for k = 1, #ended, 2 do ulids[#ulids + 1] = ended[k] end
  local is_parent = call('SMISMEMBER', PARENTS, unpack(ulids))
  for k, ulid in ipairs(ulids) do
    if is_parent[k] == 1 then
      local out = {}
      for _, child in ipairs(call('SMEMBERS', P .. 'd:' .. ulid)) do
        out[#out + 1], out[#out + 2] = now, 'e ' .. child .. ' ' .. ulid .. ' ' .. ended[2 * k]
        if #out == 1000 then
          call('ZADD', OUT, unpack(out))
          out = {}
        end
      end
      if #out > 0 then call('ZADD', OUT, unpack(out)) end
      any = true
    end
  end
  return any
end

-- hold_for(ulid, parents, run_at, now): holds a job until its parents, ids with spaces between, have ended.
local function hold_for(ulid, parents, run_at, now)
  local ids, out = {}, {}
  for id in string.gmatch(parents, '%S+') do
    ids[#ids + 1] = id
    out[#out + 1], out[#out + 2] = now, 'w ' .. id .. ' ' .. ulid .. ' ' .. now
  end
  call('ZADD', BLOCKED, run_at, ulid)
  call('SET', P .. 'w:' .. ulid, parents)
  call('SADD', P .. 'g:' .. ulid, unpack(ids))
  call('ZADD', OUT, unpack(out))
end
