-- read_feed: the next entries of the feed for one process of a consumer.
-- KEYS  the feed, the id of the last entry dropped from it
-- ARGV  consumer, process, the most entries, ms after which entries of another process are taken over, where a new
--       consumer begins (an id, '$': at what comes now, '': at the oldest kept), then ids of entries that are done
-- Answers {after, through, last, id, entry, id, entry, …}. after, through: the consumer has missed the entries after
-- one up to the other, both '' where it has missed none; last: the id of the feed's last entry. First come those that this process was given before and has not
-- said to be done: a reply was lost, the process began anew, or another one died. (The consumer is a group.)
local feed, consumer, process, most = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local trimmed = redis.call('GET', KEYS[2]) or '0-0'

local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function is_before(id, other)
  local ms, seq = parts(id)
  local other_ms, other_seq = parts(other)
  return ms < other_ms or ms == other_ms and seq < other_seq
end

-- Where the consumer stands; nil: it is new.
local function stands()
  local groups = redis.pcall('XINFO', 'GROUPS', feed)
  for _, group in ipairs(groups.err and {} or groups) do
    local found = {}
    for i = 1, #group, 2 do found[group[i]] = group[i + 1] end
    if found.name == consumer then return found['last-delivered-id'] end
  end
end

local place = stands()
if not place then
  redis.call('XGROUP', 'CREATE', feed, consumer, ARGV[5] == '' and trimmed or ARGV[5], 'MKSTREAM')
  place = stands()
end
for from = 6, #ARGV, 1000 do redis.call('XACK', feed, consumer, unpack(ARGV, from, math.min(from + 999, #ARGV))) end

local newest = redis.call('XREVRANGE', feed, '+', '-', 'COUNT', 1)[1]
local answer = {'', '', newest and newest[1] or trimmed}
local function miss(after, through)
  if answer[2] == '' or is_before(after, answer[1]) then answer[1] = after end
  if answer[2] == '' or is_before(answer[2], through) then answer[2] = through end
end

if is_before(place, trimmed) then
  miss(place, trimmed)
  redis.call('XGROUP', 'SETID', feed, consumer, trimmed)
end
local claimed = redis.call('XAUTOCLAIM', feed, consumer, process, ARGV[4], '0-0', 'COUNT', most, 'JUSTID')
for _, id in ipairs(claimed[3] or {}) do miss('0-0', id) end
for _, from in ipairs({'0', '>'}) do
  local room = most - (#answer - 3) / 2
  local page = room > 0
    and redis.call('XREADGROUP', 'GROUP', consumer, process, 'COUNT', room, 'STREAMS', feed, from)
  for _, entry in ipairs(page and page[1][2] or {}) do
    if entry[2] then
      answer[#answer + 1], answer[#answer + 2] = entry[1], entry[2][2]
    else  -- it was dropped after this process was given it
      miss('0-0', entry[1])
      redis.call('XACK', feed, consumer, entry[1])
    end
  end
end
return answer
