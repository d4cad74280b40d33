-- Takes a lease that is free, or renews one's own.
--
-- KEYS[1]  the lease: its value is the replica that has it
-- ARGV     1 replica, 2 for how long, ms
-- returns  1 it is the caller's, 0 another has it
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
