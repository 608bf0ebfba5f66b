-- trim_feed: drops the oldest entries of the feed: those over its bound, and those that are too old.
-- KEYS  the feed, the id of the last entry dropped from it
-- ARGV  the most entries, the time in ms before which an entry is too old, the most entries dropped by one call
-- Answers how many were dropped.
local length, most, oldest = redis.call('XLEN', KEYS[1]), tonumber(ARGV[1]), tonumber(ARGV[2])
local dropped, last = 0, nil
local over = math.min(math.max(length - most, 0), tonumber(ARGV[3]))
local function first_is_old()
  local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  return first and tonumber(string.match(first[1], '^%d+')) < oldest
end
while dropped < over or dropped < tonumber(ARGV[3]) and first_is_old() do
  local count = dropped < over and math.min(over - dropped, 500) or 500
  local page, taken = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', count), 0
  for _, entry in ipairs(page) do
    if dropped >= over and tonumber(string.match(entry[1], '^%d+')) >= oldest then break end
    dropped, taken, last = dropped + 1, taken + 1, entry[1]
  end
  if taken == 0 then break end
  local ms, seq = string.match(last, '^(%d+)-(%d+)$')
  redis.call('XTRIM', KEYS[1], 'MINID', ms .. '-' .. string.format('%.0f', tonumber(seq) + 1))
end
if last then redis.call('SET', KEYS[2], last) end
return dropped
