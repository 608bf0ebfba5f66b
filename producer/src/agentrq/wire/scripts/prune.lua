-- prune: out of the index with sessions that have no state, in one step: one of them may be just beginning.
-- KEYS  index, then the states of these sessions
-- ARGV  their ids
for i, sid in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[i + 1]) == 0 then redis.call('ZREM', KEYS[1], sid) end
end
return 'ok'
