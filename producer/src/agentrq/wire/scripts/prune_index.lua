-- prune_index: takes sessions whose state is gone out of all indexes. It looks itself: one may have been started anew.
-- KEYS  the set of all sessions, the states of the sessions, then further sets that have them
-- ARGV  the sessions' ids, in the same order
-- Answers how many were taken out.
local pruned = 0
for i, sid in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[i + 1]) == 0 then
    pruned = pruned + redis.call('ZREM', KEYS[1], sid)
    index_session(KEYS[i + 1])
    index_waiting(KEYS[i + 1])
    for further = #ARGV + 2, #KEYS do redis.pcall('ZREM', KEYS[further], sid) end
  end
end
return pruned
