-- Requests with random rows, all made before the run: users 1 to 1,000 and items 1 to 800 of the synthetic shop in
-- JSON, or else the bodies of so many bytes each that stand in a file.
-- wrk -s rows.lua URL -- ROWS [FILE BYTES]; the last line of output is one JSON object.

local ROWS_OF_ALL_BODIES = 65536
local users, items = 1000, 800
local bodies, next_body = {}, 0
local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("seed", threads)
end

function init(args)
   wrk.method = "POST"
   if args[2] then
      read_bodies(args[2], tonumber(args[3]))
   else
      make_bodies(tonumber(args[1]))
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

function make_bodies(rows)
   math.randomseed(seed)
   wrk.headers["Content-Type"] = "application/json"
   for body = 1, math.max(256, math.floor(ROWS_OF_ALL_BODIES / rows)) do
      local row = {}
      for i = 1, rows do
         row[i] = string.format("[%d, %d]", math.random(users), math.random(items))
      end
      bodies[body] = wrk.format(nil, nil, nil, '{"input": [' .. table.concat(row, ", ") .. "]}")
   end
end

function request()
   next_body = next_body % #bodies + 1
   return bodies[next_body]
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, '
         .. '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
      summary.requests, summary.duration / 1e6,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
      errors.connect, errors.read, errors.write, errors.status, errors.timeout
   ))
end
