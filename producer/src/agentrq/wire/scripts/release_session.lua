-- release_session: takes the owner away from a session that its worker does not host; another worker recovers it.
-- KEYS  state
-- ARGV  the epoch, token and start's nonce that the worker read
-- Answers 1, or 0: another writer came first, it has ended, or the id belongs to another session now.
local seen = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'nonce', 'status')
if seen[1] ~= ARGV[1] or (seen[2] or '') ~= ARGV[2] or (seen[3] or '') ~= ARGV[3] then return 0 end
if seen[4] == 'done' or seen[4] == 'error' then return 0 end
redis.call('HDEL', KEYS[1], 'worker', 'token', 'claim', 'pid')
return 1
