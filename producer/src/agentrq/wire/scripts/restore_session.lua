-- restore_session: writes a session's state again for its live owner, after Redis came back without it or older.
-- KEYS  state, events, inbox, commands, index, the set that notes which sessions were removed
-- ARGV  epoch, the start's nonce, session id, when it was created, then field, value, … (token and claim among them)
-- Answers {outcome, cursor}:
--   'restored'  the state is the owner's again
--   'kept'      the state in Redis is of this epoch or a later one
--   'removed'   the session was removed, or its id belongs to a later session now
-- The cursor is the stream's last entry ('0-0': there is none): the owner writes again what it wrote after that.
local seen = redis.call('HMGET', KEYS[1], 'epoch', 'nonce', 'cursor')
local later = seen[1] and tonumber(seen[1]) >= tonumber(ARGV[1])
local other = seen[1] and (seen[2] or '') ~= ARGV[2]
if other and later then return {'removed', '0-0'} end
if later then return {'kept', seen[3]} end
if type(redis.pcall('ZSCORE', KEYS[6], ARGV[2])) == 'string' then return {'removed', '0-0'} end
-- An earlier session had this id, and its end and removal were lost: epochs rise from one to the next.
if other then redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4]) end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local cursor = last[1] and last[1][1] or '0-0'
redis.call('ZADD', KEYS[5], 'NX', ARGV[4], ARGV[3])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'cursor', cursor, unpack(ARGV, 5))
redis.call('HSETNX', KEYS[1], 'streamBytes', 0)
for i = 1, 4 do redis.call('PERSIST', KEYS[i]) end
index_waiting(KEYS[1])
index_session(KEYS[1])
local tenant = redis.call('HGET', KEYS[1], 'tenant')
if tenant then
  redis.call('ZADD', string.match(KEYS[1], '^(.*):{[^{}]*}:state$') .. ':tenant:' .. tenant, ARGV[4], ARGV[3])
end
return {'restored', cursor}
