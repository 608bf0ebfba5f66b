-- look: fields of a state, if they are no more than so many bytes in all.
-- KEYS  state
-- ARGV  most bytes, then names of fields
-- Answers their values in order, or the size in bytes (an integer) where it is too large.
local size = 0
for i = 2, #ARGV do size = size + redis.call('HSTRLEN', KEYS[1], ARGV[i]) end
if size > tonumber(ARGV[1]) then return size end
return redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
