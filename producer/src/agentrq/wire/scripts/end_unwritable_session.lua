-- end_unwritable_session: ends a session whose stream or inbox Redis cannot write (another type), in its state alone.
-- KEYS  state, events, inbox, commands
-- ARGV  the epoch, token and start's nonce that the caller read, status, reason, error, retention in ms,
--       session id
-- Answers 1, or 0 where another writer came first.
local seen = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'nonce')
if seen[1] ~= ARGV[1] or (seen[2] or '') ~= ARGV[2] or (seen[3] or '') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[4], 'reason', ARGV[5], 'error', ARGV[6], 'endedAt', now())
redis.call('HDEL', KEYS[1], 'worker', 'token', 'claim', 'pid', 'requests', 'openRequests', 'kept')
index_waiting(KEYS[1])
tell_end(KEYS[1], ARGV[8], redis.call('HGET', KEYS[1], 'cursor') or '', now())
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[7]) end
return 1
