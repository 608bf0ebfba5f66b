-- restore: Redis came back without a session, or with an older one, while its owner lives: the owner's word stands.
-- KEYS  state, events, inbox, commands
-- ARGV  epoch, token, then field, value, …
-- Answers {outcome, cursor}: 'restored', or 'kept' where the state is of this epoch or a later one. The cursor is
-- the stream's last entry ('0-0': it is gone): what the owner wrote after it is to be written again.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and tonumber(epoch) >= tonumber(ARGV[1]) then return {'kept', redis.call('HGET', KEYS[1], 'cursor')} end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local cursor = last[1] and last[1][1] or '0-0'
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'token', ARGV[2], 'cursor', cursor, unpack(ARGV, 3))
redis.call('HSETNX', KEYS[1], 'streamBytes', 0)
for _, key in ipairs(KEYS) do redis.call('PERSIST', key) end
return {'restored', cursor}
