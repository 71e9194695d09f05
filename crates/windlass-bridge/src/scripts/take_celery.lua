-- Takes messages of a Celery queue: the lists of its priorities, first one first, each from its
-- tail. A message is known by its digest: one that is there twice is one.
--
-- KEYS[1] the first list. ARGV: from 5 on all lists.
for i = 5, #ARGV do
  if taken < most then
    for _, message in ipairs(redis.call('RPOP', ARGV[i], most - taken) or {}) do
      take(redis.sha1hex(message), message)
    end
  end
  waiting = waiting + redis.call('LLEN', ARGV[i])
end
