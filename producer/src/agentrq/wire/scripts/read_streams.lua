-- read_streams: reads entries of streams, each from a start on, within a bound of bytes whatever was written there.
-- KEYS  streams
-- ARGV  'XRANGE' or 'XREVRANGE', the far end ('+' or '-'), field, the most entries of a stream, the most bytes of an
--       entry, the most bytes in all; then the start in each stream
-- Answers, for each stream that is not empty, {position in KEYS, an error's text} or {position in KEYS, 1 where there
-- may be more (else 0), id, value, id, value, …}: the value of that field, '' where an entry does not have it, its
-- size in bytes (an integer) where it is too large.
local most, largest, left = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local function entries(at, key, from)
  local found = {at, 0}
  for _ = 1, most do
    local page = redis.pcall(ARGV[1], key, from, ARGV[2], 'COUNT', 1)
    if page.err then return {at, page.err} end
    if not page[1] then return found end
    if left <= 0 then break end
    local id, fields, value = page[1][1], page[1][2], ''
    for f = 1, #fields, 2 do
      if fields[f] == ARGV[3] then value = fields[f + 1] end
    end
    if #value > largest then value = #value else left = left - #value end
    found[#found + 1], found[#found + 2] = id, value
    from = '(' .. id
  end
  found[2] = 1
  return found
end

local answers = {}
for i, key in ipairs(KEYS) do
  local found = entries(i, key, ARGV[6 + i])
  if found[2] ~= 0 or found[3] then answers[#answers + 1] = found end
end
return answers
