-- move_place: notes up to where an endpoint's entries of the feed are done, while its process has the lease.
-- KEYS  the endpoint's lease, its place
-- ARGV  the process's token, the id of the last entry that is done
-- Answers 1, or 0 where another process has the lease.
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
return 1
