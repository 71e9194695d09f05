-- Writes what became of a task, step by step, and says it on the channel of the same name, as Celery's
-- own back end does. What is told late covers no end, and nothing covers a SUCCESS.
--
-- KEYS[1] the result's key. ARGV: 1 how long it stays (s), then pairs of '1' for an end or '0' for what is not,
-- and the text. Cost: O(length of the result that is there).
local function status()
  local found = redis.pcall('GET', KEYS[1])
  local is_json, meta = pcall(cjson.decode, type(found) == 'string' and found or '')
  return is_json and type(meta) == 'table' and meta.status
end
local found = status()
local is_ended = found == 'SUCCESS' or found == 'FAILURE' or found == 'REVOKED'
for i = 2, #ARGV, 2 do
  if not is_ended or (ARGV[i] == '1' and found ~= 'SUCCESS') then
    redis.call('SET', KEYS[1], ARGV[i + 1], 'EX', ARGV[1])
    redis.call('PUBLISH', KEYS[1], ARGV[i + 1])
  end
end
