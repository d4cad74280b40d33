-- Entries of a log behind a place, up to about a megabyte; a part of append-2.lua and read-2.lua.
-- From ARGV[first] on, pairs of replica and number: blobs up to these go without their bytes.
local function entriesAfter(log, place, first)
  local known = {}
  for i = first, #ARGV, 2 do known[ARGV[i]] = tonumber(ARGV[i + 1]) end
  local entries, bytes, from, more = {}, 0, '(' .. place, '0'
  while true do
    local found = redis.call('XRANGE', log, from, '+', 'COUNT', 8)
    for _, entry in ipairs(found) do
      local fields = entry[2]
      local blob = fields[6]
      if (known[fields[2]] or -1) >= tonumber(fields[4]) then blob = '' end
      entries[#entries + 1] = entry[1]
      entries[#entries + 1] = fields[2]
      entries[#entries + 1] = fields[4]
      entries[#entries + 1] = blob
      bytes = bytes + #blob + 64
      from = '(' .. entry[1]
    end
    if #found < 8 then break end
    if bytes > 1048576 or #entries > 8192 then
      more = '1'
      break
    end
  end
  return entries, more
end
