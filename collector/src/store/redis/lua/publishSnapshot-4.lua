-- Makes a snapshot that is written completely the newest one. The last step: readers go by the pointer.
--
-- KEYS[1]  the keeper's lease       KEYS[2]  the pointer
-- KEYS[3]  the snapshot's chunks, a hash that would expire if its writer ended before this
-- KEYS[4]  the snapshot before the one before, which nobody needs any more
-- ARGV     1 replica, 2 the pointer's new value
-- returns  1 done, 0 the caller is no longer the keeper, -1 chunks are missing
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('PERSIST', KEYS[3]) == 0 and redis.call('EXISTS', KEYS[3]) == 0 then return -1 end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('UNLINK', KEYS[4])
return 1
