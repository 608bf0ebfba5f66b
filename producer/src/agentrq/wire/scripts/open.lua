-- open: a new session's state and its first event, `queued` at 0-1.
-- KEYS  state, events, inbox, commands, and for a start that RQ brought its job: one that is gone was removed meanwhile
-- ARGV  status channel, status JSON, nonce, count of state arguments, field, value, …, then the commands that are part
--       of it (see also): its place in the index, its job in RQ's queue
-- Answers 'created' (again for a repeat with the same nonce), 'exists' or 'gone'.
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('HGET', KEYS[1], 'nonce') == ARGV[3] then return 'created' end
  return 'exists'
end
if KEYS[5] and redis.call('HEXISTS', KEYS[5], 'data') == 0 then return 'gone' end
-- First what may be refused (keys of others): then nothing stands in the way of another try.
local last = 4 + tonumber(ARGV[4])
also(last + 1)
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
append(KEYS[2], '0-1', 'status', ARGV[2])
redis.call('HSET', KEYS[1], 'nonce', ARGV[3], 'status', 'queued', 'epoch', 0, 'cursor', '0-1',
  'streamBytes', #ARGV[2], unpack(ARGV, 5, last))
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 'created'
