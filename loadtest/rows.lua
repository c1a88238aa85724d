-- Requests with random rows, all made before the run: so many users from 1 and 800 items of the synthetic shop.
-- wrk -s rows.lua URL -- ROWS BODY ROW FIRST_ITEM USERS; the last line of output is one JSON object. BODY has COUNT and ROWS
-- in place of what changes, ROW two %d: {"input": [ROWS]} and [%d, %d]. Or else -- ROWS FILE BYTES: the binary bodies of so
-- many bytes each that stand in a file.

local ROWS_OF_ALL_BODIES = 65536
local ITEMS = 800
local bodies, next_body = {}, 0
local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("seed", threads)
end

function init(args)
   wrk.method = "POST"
   if args[4] then
      make_bodies(tonumber(args[1]), args[2], args[3], tonumber(args[4]), tonumber(args[5]))
   else
      read_bodies(args[2], tonumber(args[3]))
   end
end

function read_bodies(path, bytes)
   wrk.headers["Content-Type"] = "application/octet-stream"
   wrk.headers["Accept"] = "application/octet-stream"
   local file = assert(io.open(path, "rb"))
   for body in function() return file:read(bytes) end do
      bodies[#bodies + 1] = wrk.format(nil, nil, nil, body)
   end
   file:close()
end

function make_bodies(rows, format, row_format, first_item, users)
   local around = format:gsub("COUNT", rows)
   math.randomseed(seed)
   wrk.headers["Content-Type"] = "application/json"
   for body = 1, math.max(256, math.floor(ROWS_OF_ALL_BODIES / rows)) do
      local row = {}
      for i = 1, rows do
         row[i] = string.format(row_format, math.random(users), first_item - 1 + math.random(ITEMS))
      end
      bodies[body] = wrk.format(nil, nil, nil, (around:gsub("ROWS", table.concat(row, ", "))))
   end
end

function request()
   next_body = next_body % #bodies + 1
   return bodies[next_body]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "p999_ms": %.3f, "max_ms": %.3f, '
         .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
      summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3,
      errors.connect, errors.read, errors.write, errors.status, errors.timeout
   ))
end
