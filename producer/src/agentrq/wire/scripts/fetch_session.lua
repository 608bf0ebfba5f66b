-- fetch_session: reads fields of a session's state, unless they are too large together.
-- KEYS  state
-- ARGV  the most bytes that may be read, then the names of the fields
-- Answers the fields' values in order (nil: absent), or their size in bytes, an integer, where they are too large.
local size = 0
for i = 2, #ARGV do size = size + redis.call('HSTRLEN', KEYS[1], ARGV[i]) end
if size > tonumber(ARGV[1]) then return size end
return redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
