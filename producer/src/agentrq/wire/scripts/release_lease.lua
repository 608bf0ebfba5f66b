-- release_lease: gives a worker's lease back, if it still is this worker's.
-- KEYS  the worker's lease
-- ARGV  the worker's token
-- Answers 1, or 0 where it was not.
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
