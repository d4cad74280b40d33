-- What the Wasm filter puts on the wire, as a Lua filter: trace context to the front, the sender's
-- CUID, status and call id on requests, the responder's CUID and status on responses, and the CUID
-- for the access log. Copies that the application forwarded are replaced, `_` twins and repeated own
-- headers removed in both directions, and nothing is stamped past 100 fields or across a size limit.
-- It reports nothing, reads nothing of what the application says, and does not ask whether the callee is
-- in the mesh. `DIRECTION` ("inbound" or "outbound") is set in front of this text.
--
-- Written for speed: names are looked up in tables, each list is walked once, headers are rewritten
-- only when the order is wrong, and trace headers that are in order among themselves stay in place.

local byte, format, random = string.byte, string.format, math.random

local RANK = {}
for rank, name in ipairs({
  "traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled",
  "x-b3-flags", "uber-trace-id", "sw8", "x-cloud-trace-context", "x-datadog-trace-id",
  "x-datadog-parent-id", "x-datadog-sampling-priority", "x-datadog-origin", "x-datadog-tags",
}) do
  RANK[name] = rank
end

local COLON = byte(":")

-- Own names and all spellings of them with `_`, each with the name that it stands for.
local OWN = {}
for _, name in ipairs({ "x-cuid", "x-mp-status", "x-mp-progress", "x-mp-rollback" }) do
  local spellings = { "" }
  for i = 1, #name do
    local c, longer = name:sub(i, i), {}
    for _, head in ipairs(spellings) do
      longer[#longer + 1] = head .. c
      if c == "-" then longer[#longer + 1] = head .. "_" end
    end
    spellings = longer
  end
  for _, spelling in ipairs(spellings) do OWN[spelling] = name end
end

-- Usual limits of a header block, and what the router and the next proxy's way to count may add.
local FIELDS_MAX, ROUTER_FIELDS = 100, 8
local LIMITS = { 8192, 16384, 32768, 61440 }
local FIELD_BYTES, SLACK = 4, 416
local STAMP_BYTES = 160

local function breaks(fields, bytes, stamps)
  if fields + stamps + ROUTER_FIELDS > FIELDS_MAX then return true end
  local most = bytes + STAMP_BYTES + (fields + stamps) * FIELD_BYTES + SLACK
  for i = 1, #LIMITS do
    if bytes <= LIMITS[i] and most > LIMITS[i] then return true end
  end
  return false
end

-- Removes twins and repeats; `all` removes every own header.
local function clean(headers, own, all)
  local kept = {}
  for i = 1, #own, 2 do headers:remove(own[i]) end
  if all then return end
  for i = 1, #own, 2 do
    local name = own[i]
    if OWN[name] == name and not kept[name] then
      kept[name] = true
      headers:add(name, own[i + 1])
    end
  end
end

local function hex(digits)
  local text = ""
  for _ = 1, digits do text = text .. format("%x", random(0, 15)) end
  return text
end

math.randomseed(os.time() + os.clock() * 1e6)
local CUID = hex(8) .. "-" .. hex(4) .. "-4" .. hex(3) .. "-a" .. hex(3) .. "-" .. hex(12)
local EVENT = 'event="' .. hex(8)

local in_flight = 0
local calls = 0

-- Lua cannot see how long a request waited for a connection; the constant keeps the header as long.
local function status()
  return format("inflight=%d, wait=0, age=0", in_flight)
end

local function order(headers)
  local names, values, n = {}, {}, 0
  local traces, contents, m = {}, {}, 0
  local last, late, mixed = 0, false, false
  local own, seen, hostile
  local fields, bytes = 0, 0
  for name, value in pairs(headers) do
    fields, bytes = fields + 1, bytes + #name + #value
    if byte(name) ~= COLON then
      local rank = RANK[name]
      if rank then
        if n > 0 then late = true end
        if rank < last then mixed = true end
        last = rank
        m = m + 1
        traces[m], contents[m] = name, value
      else
        n = n + 1
        names[n], values[n] = name, value
        local meant = OWN[name]
        if meant then
          own, seen = own or {}, seen or {}
          own[#own + 1], own[#own + 2] = name, value
          if meant ~= name or seen[name] then hostile = true end
          seen[name] = true
        end
      end
    end
  end
  if (late or mixed) and fields <= FIELDS_MAX then
    if mixed then
      local at = {}
      for i = 1, m do at[i] = i end
      table.sort(at, function(a, b)
        local ra, rb = RANK[traces[a]], RANK[traces[b]]
        if ra ~= rb then return ra < rb end
        return a < b
      end)
      for i = 1, m do headers:remove(traces[i]) end
      for i = 1, m do headers:add(traces[at[i]], contents[at[i]]) end
    end
    for i = 1, n do headers:remove(names[i]) end
    for i = 1, n do headers:add(names[i], values[i]) end
  end
  if hostile or (own and DIRECTION == "outbound") then clean(headers, own, DIRECTION == "outbound") end
  return fields, bytes
end

function envoy_on_request(handle)
  local headers = handle:headers()
  in_flight = in_flight + 1
  local fields, bytes = order(headers)
  if DIRECTION == "outbound" and not breaks(fields, bytes, 3) then
    calls = calls + 1
    headers:add("x-cuid", CUID)
    headers:add("x-mp-status", status())
    headers:add("x-mp-progress", format('%s%08x"', EVENT, calls % 4294967296))
  end
  handle:streamInfo():dynamicMetadata():set("envoy.filters.http.lua", "cuid", CUID)
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local own, seen, hostile
  local fields, bytes = 0, 0
  for name, value in pairs(headers) do
    fields, bytes = fields + 1, bytes + #name + #value
    local meant = OWN[name]
    if meant then
      own, seen = own or {}, seen or {}
      own[#own + 1], own[#own + 2] = name, value
      if meant ~= name or seen[name] then hostile = true end
      seen[name] = true
    end
  end
  if DIRECTION == "inbound" then
    if own then clean(headers, own, true) end
    if not breaks(fields, bytes, 2) then
      headers:add("x-cuid", CUID)
      headers:add("x-mp-status", status())
    end
  elseif hostile then
    clean(headers, own, false)
  end
  in_flight = in_flight - 1
end
