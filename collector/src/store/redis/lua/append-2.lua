-- Puts one blob at the end of a shard's log, and returns what stands between the caller's place and it.
--
-- A blob that is there already is not put there again: blobs of a replica are numbered, and the second key
-- remembers the last number of each. So a caller that heard nothing may simply call again. A number that
-- does not follow the last one tells that the log has lost something (a failover): nothing is appended,
-- and the caller appends what is missing first.
--
-- KEYS[1]  the log, a stream of entries {r = replica, n = number, b = blob}
-- KEYS[2]  the last number of each replica, and under `trimmed` up to where the log was cut off
-- ARGV     1 replica, 2 number, 3 blob, 4 place: the last entry that the caller has read,
--          5 '1' = append although numbers are missing: they are gone for good
--          6... replica, number, ...: blobs up to that number of that replica come without their bytes
-- returns  { 1 appended or there already | 0 numbers missing, last number of the replica or -1,
--            cut off up to or '', the blob's id or '', '1' = there is more to read,
--            { id, replica, number, blob, ... } }
-- It announces the append on the shard channel that is named as the log.

-- @include entries

local replica, number = ARGV[1], tonumber(ARGV[2])
local last = tonumber(redis.call('HGET', KEYS[2], replica) or -1)
local trimmed = redis.call('HGET', KEYS[2], 'trimmed') or ''
local status, id = 1, ''
if number > last then
  if number == last + 1 or ARGV[5] == '1' or (last < 0 and number == 1) then
    id = redis.call('XADD', KEYS[1], '*', 'r', replica, 'n', ARGV[2], 'b', ARGV[3])
    redis.call('HSET', KEYS[2], replica, ARGV[2])
    redis.call('SPUBLISH', KEYS[1], replica)
    last = number
  else
    status = 0
  end
end
local entries, more = entriesAfter(KEYS[1], ARGV[4], 6)
return { status, last, trimmed, id, more, entries }
