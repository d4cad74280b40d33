-- What stands in a shard's log behind a place.
--
-- KEYS[1]  the log          KEYS[2]  the last numbers: see append-2.lua
-- ARGV     1 replica, 2 place, 3 '1' = return all last numbers,
--          4... replica, number, ...: these come without their bytes
-- returns  { last number of the replica or -1, cut off up to or '', the last id that the log has given,
--            '1' = there is more to read, { id, replica, number, blob, ... }, { replica, last number, ... } }

-- @include entries

local last = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or -1)
local trimmed = redis.call('HGET', KEYS[2], 'trimmed') or ''
local newest = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then newest = info[i + 1] end
  end
end
local numbers = {}
if ARGV[3] == '1' then numbers = redis.call('HGETALL', KEYS[2]) end
local entries, more = entriesAfter(KEYS[1], ARGV[2], 4)
return { last, trimmed, newest, more, entries, numbers }
