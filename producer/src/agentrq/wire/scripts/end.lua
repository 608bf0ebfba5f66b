-- end: the end of a session that no live worker owns, by whoever saw it.
-- KEYS  state, events, inbox, commands
-- ARGV  the epoch, the token and the start's nonce seen, session id, status channel, status, reason, error ('' for
--       none), retention in ms, then the commands that are part of it (see also): its job is canceled
-- Answers {outcome, cursor}: 'ok', 'changed' (another writer came meanwhile, or it is another session by the same id),
-- 'ended', 'missing'.
local seen = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'status', 'cursor', 'nonce')
if not seen[1] then return {'missing', ''} end
if seen[3] == 'done' or seen[3] == 'error' then return {'ended', seen[4]} end
if seen[1] ~= ARGV[1] or (seen[2] or '') ~= ARGV[2] or (seen[5] or '') ~= ARGV[3] then return {'changed', seen[4]} end
also(10)  -- first: it may be refused, and then nothing stands in the way of another try
local epoch = tonumber(seen[1]) + 1
local tail = '"sessionId":"' .. ARGV[4] .. '","status":"' .. ARGV[6] .. '","timestamp":' .. now()
  .. (ARGV[8] ~= '' and ',"error":' .. cjson.encode(ARGV[8]) or '') .. ',"reason":"' .. ARGV[7] .. '"}'
redis.call('HSET', KEYS[1], 'epoch', epoch, 'status', ARGV[6], 'reason', ARGV[7])
if ARGV[8] ~= '' then redis.call('HSET', KEYS[1], 'error', ARGV[8]) end
redis.call('HDEL', KEYS[1], 'worker', 'token', 'claim', 'pid')
return {'ok', finish(KEYS, ARGV[4], ARGV[5], epoch, 0, tail, tonumber(ARGV[9]))}
