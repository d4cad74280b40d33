-- What the Wasm filter puts on the wire, as a Lua filter: trace context to the front, the sender's
-- CUID, status and call id on requests, the responder's CUID and status on responses, and the CUID
-- for the access log, copies that the application forwarded replaced. It reports nothing, reads nothing
-- of what the application says, and checks neither size limits nor whether the callee is in the mesh.
-- `DIRECTION` ("inbound" or "outbound") is set in front of this text.
--
-- Written for speed: names are looked up in tables, the list is walked once, headers are rewritten
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
  for name, value in pairs(headers) do
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
      end
    end
  end
  if not late and not mixed then return end
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

function envoy_on_request(handle)
  local headers = handle:headers()
  in_flight = in_flight + 1
  order(headers)
  if DIRECTION == "outbound" then
    calls = calls + 1
    headers:replace("x-cuid", CUID)
    headers:replace("x-mp-status", status())
    headers:replace("x-mp-progress", format('%s%08x"', EVENT, calls % 4294967296))
  end
  handle:streamInfo():dynamicMetadata():set("envoy.filters.http.lua", "cuid", CUID)
end

function envoy_on_response(handle)
  if DIRECTION == "inbound" then
    local headers = handle:headers()
    headers:replace("x-cuid", CUID)
    headers:replace("x-mp-status", status())
  end
  in_flight = in_flight - 1
end
