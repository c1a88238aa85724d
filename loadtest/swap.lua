-- One fixed row, and a check of every answer: status 200, and the score is that of the version that it names.
-- wrk -s swap.lua URL -- USER ITEM VERSION=SCORE...; the last line of output is one JSON object.
-- The check slows wrk down, so nothing is timed by this.

local TOLERANCE = 1e-5
local threads, expected = {}, {}

-- Globals, so that done() can get them from each thread.
right, wrong, first_wrong = {}, 0, ""

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "application/json"
   wrk.body = string.format('{"input": [[%d, %d]]}', args[1], args[2])
   for i = 3, #args do
      local version, score = args[i]:match("^(%d+)=(.+)$")
      expected[version] = tonumber(score)
      right[version] = 0
   end
end

function response(status, headers, body)
   local version = headers["x-model-version"]
   local score = tonumber(body:match('"output":%s*%[([^,%]]+)%]'))
   local known = expected[version]
   if status == 200 and score and known and math.abs(score - known) <= TOLERANCE then
      right[version] = right[version] + 1
      return
   end
   wrong = wrong + 1
   if wrong == 1 then
      first_wrong = string.format("status %d, version %s: %s", status, tostring(version), body:sub(1, 200))
   end
end

function done(summary)
   local errors = summary.errors
   local wrong, example, versions = 0, "", {}
   for _, thread in ipairs(threads) do
      wrong = wrong + thread:get("wrong")
      if example == "" then
         example = thread:get("first_wrong")
      end
      for version, count in pairs(thread:get("right")) do
         versions[version] = (versions[version] or 0) + count
      end
   end
   local counts = {}
   for version, count in pairs(versions) do
      table.insert(counts, string.format('"%s": %d', version, count))
   end
   io.write(string.format(
      '{"right": {%s}, "wrong": %d, "broken": %d, "first_wrong": "%s"}\n',
      table.concat(counts, ", "), wrong, errors.connect + errors.read + errors.write + errors.timeout,
      example:gsub('[%c"\\]', "'")
   ))
end
