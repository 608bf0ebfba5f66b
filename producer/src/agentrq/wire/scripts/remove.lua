-- remove: an ended session's keys, at once.
-- KEYS  state, events, inbox, commands
-- ARGV  the commands that are part of it (see also): out of the index, and RQ's job
-- Answers 'removed', 'missing' or 'live' (nothing was deleted: stop it first).
local status = redis.call('HGET', KEYS[1], 'status')
if not status then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  return 'missing'
end
if status ~= 'done' and status ~= 'error' then return 'live' end
also(1)  -- first: it may be refused, and then all is to be there for another try
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
return 'removed'
