-- prune_index: takes sessions whose state is gone out of the index. It looks itself: one may have been started anew.
-- KEYS  index, then the states of the sessions
-- ARGV  the sessions' ids, in the same order
-- Answers how many were taken out.
local pruned = 0
for i, sid in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[i + 1]) == 0 then pruned = pruned + redis.call('ZREM', KEYS[1], sid) end
end
return pruned
