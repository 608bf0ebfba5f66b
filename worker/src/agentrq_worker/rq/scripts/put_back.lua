-- put_back: a job that was dequeued and never started, back into its queue.
-- KEYS  the intermediate list, the queue, RQ's note of when the job was first seen there
-- ARGV  job id
-- Answers how often it was in the list.
local found = redis.call('LREM', KEYS[1], 0, ARGV[1])
if found > 0 then redis.call('LPUSH', KEYS[2], ARGV[1]) end
redis.call('DEL', KEYS[3])
return found
