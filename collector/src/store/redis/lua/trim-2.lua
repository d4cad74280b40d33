-- Cuts off a shard's log before an id, and forgets the numbers of replicas that ended long ago.
--
-- KEYS[1]  the log          KEYS[2]  the last numbers: see append-2.lua
-- ARGV     1 the first id to keep, 2... replicas whose numbers nobody needs any more
-- returns  how many entries went
local cut = redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
if cut > 0 then redis.call('HSET', KEYS[2], 'trimmed', ARGV[1]) end
for i = 2, #ARGV do redis.call('HDEL', KEYS[2], ARGV[i]) end
return cut
