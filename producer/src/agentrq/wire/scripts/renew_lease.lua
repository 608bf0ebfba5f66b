-- renew_lease: a worker's lease holds for as long again. (A key that is not a string is nobody's lease.)
-- KEYS  the worker's lease
-- ARGV  the worker's token, the lease in ms
-- Answers 1, or 0 where another process has taken the worker's name.
local token = redis.pcall('GET', KEYS[1])
if type(token) == 'string' and token ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
