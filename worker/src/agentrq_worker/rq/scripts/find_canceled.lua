-- find_canceled: which jobs were canceled in RQ.
-- KEYS  RQ's registry of canceled jobs, the jobs' hashes
-- ARGV  the jobs' ids
-- Answers the ids of those that are in the registry and have that status.
local canceled = {}
for i, id in ipairs(ARGV) do
  if redis.call('ZSCORE', KEYS[1], id) and is_canceled(KEYS[i + 1]) then canceled[#canceled + 1] = id end
end
return canceled
