-- Lets go of a lease that is one's own.
--
-- KEYS[1]  the lease        ARGV  1 replica        returns  1 it was the caller's, 0 it was not
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
