-- end: the end of a session that no live worker owns, by whoever saw it.
-- KEYS  state, events, inbox, commands
-- ARGV  the epoch and the token seen, session id, status channel, status, reason, error ('' for none),
--       retention in ms, then the commands that are part of it (see also): its job is canceled
-- Answers {outcome, cursor}: 'ok', 'changed' (another writer came meanwhile), 'ended', 'missing'.
local seen = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'status', 'cursor')
if not seen[1] then return {'missing', ''} end
if seen[3] == 'done' or seen[3] == 'error' then return {'ended', seen[4]} end
if seen[1] ~= ARGV[1] or (seen[2] or '') ~= ARGV[2] then return {'changed', seen[4]} end
also(9)  -- first: it may be refused, and then nothing stands in the way of another try
local epoch = tonumber(seen[1]) + 1
local tail = '"sessionId":"' .. ARGV[3] .. '","status":"' .. ARGV[5] .. '","timestamp":' .. now()
  .. (ARGV[7] ~= '' and ',"error":' .. cjson.encode(ARGV[7]) or '') .. ',"reason":"' .. ARGV[6] .. '"}'
redis.call('HSET', KEYS[1], 'epoch', epoch, 'status', ARGV[5], 'reason', ARGV[6])
if ARGV[7] ~= '' then redis.call('HSET', KEYS[1], 'error', ARGV[7]) end
redis.call('HDEL', KEYS[1], 'worker', 'token', 'pid')
return {'ok', finish(KEYS, ARGV[3], ARGV[4], epoch, 0, tail, tonumber(ARGV[8]))}
