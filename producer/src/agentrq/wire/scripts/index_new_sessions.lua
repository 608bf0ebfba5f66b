-- index_new_sessions: indexes sessions that have started since this was done last (index.lua): clients and workers of an
-- older version index none.
-- KEYS  the set of all sessions, the set of the living
-- ARGV  how many sessions to index, ms by which to look back further: the clocks of two Redis servers may differ
-- Answers 1 where there may be more, else 0.
local prefix, most = string.match(KEYS[1], '^(.*):sessions$'), tonumber(ARGV[1])
local through = redis.call('ZSCORE', KEYS[2], '')
local least = through and string.format('(%.0f', tonumber(through) - tonumber(ARGV[2])) or '-inf'
local members = redis.call('ZRANGE', KEYS[1], least, '+inf', 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES')
local more, last = #members == 2 * most, tonumber(members[#members])
if #members == 0 then return 0 end
if more then  -- and all others that started in the millisecond of the last one
  members = redis.call('ZRANGE', KEYS[1], least, string.format('%.0f', last), 'BYSCORE', 'WITHSCORES')
end
for i = 1, #members, 2 do index_session(prefix .. ':{' .. members[i] .. '}:state') end
-- A start that somebody has set into the future is not to hide the sessions until then.
last = math.min(last, tonumber(now()))
local further = not through or last > tonumber(through)
if further then redis.call('ZADD', KEYS[2], string.format('%.0f', last), '') end
return (more and (further or ARGV[2] ~= '0')) and 1 or 0
