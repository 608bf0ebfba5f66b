-- remove: an ended session's keys, at once.
-- KEYS  state, events, inbox, commands, and where it is noted that this session was removed (not one that will
--       have its id): an owner that Redis did not reach meanwhile must not give it back
-- ARGV  the commands that are part of it (see also): out of the index, and RQ's job
-- Answers 'removed', 'missing' or 'live' (nothing was deleted: stop it first).
local status, nonce = unpack(redis.call('HMGET', KEYS[1], 'status', 'nonce'))
if not status then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  return 'missing'
end
if status ~= 'done' and status ~= 'error' then return 'live' end
also(1)  -- first: it may be refused, and then all is to be there for another try
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
if nonce then redis.pcall('ZADD', KEYS[5], now(), nonce) end  -- whatever stands there: it is removed
return 'removed'
