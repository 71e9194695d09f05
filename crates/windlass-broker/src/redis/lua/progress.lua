-- Writes a running job's progress.
--
-- KEYS[1]  the queue's meta key
-- ARGV     lease '<ulid>:<epoch>', progress in short form (at most 64 bytes)
-- Reply    1 taken, 0 stale
-- Cost     ZSCORE, ZREM (so that it passes when Redis is full), HSET, EXISTS
if not call('ZSCORE', LEASE, ARGV[1]) then return 0 end
local ulid = sub(ARGV[1], 1, 26)
call('ZREM', LEASE, '')
-- Refused where the job is damaged, which its end will show.
redis.pcall('HSET', J .. ulid, 'progress', ARGV[2])
changed({ulid})
return 1
