-- let_go(ulid, key): a unique key is free again, if this job holds it. Cost: 1 read, 1 write.
local function let_go(ulid, key)
  local held = call('GET', P .. 'u:' .. key)
  if held and sub(held, 1, 26) == ulid then call('DEL', P .. 'u:' .. key) end
end

-- ends_hold(opts, by): true when the hold on its unique key ends with the start ('s') or the
-- end ('[sf]') of a job with these options.
local function ends_hold(opts, by)
  return opts and string.find(opts, '^%+' .. by)
end
