-- remove_session: deletes an ended session's keys.
-- KEYS  state, events, inbox, commands, and the set that notes which sessions were removed, by their starts' nonces:
--       an owner that was cut off from Redis meanwhile must not give the session back
-- ARGV  the start's nonce that the caller read ('': any), then commands to run in the same step (see run_commands):
--       they delete its place among all sessions and its RQ job
-- Answers 'removed'; 'missing': there is no such session (any more); 'live': nothing was deleted, stop it first.
local status, nonce, epoch, cursor = unpack(redis.call('HMGET', KEYS[1], 'status', 'nonce', 'epoch', 'cursor'))
if not status then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  return 'missing'
end
if ARGV[1] ~= '' and nonce ~= ARGV[1] then return 'missing' end
if status ~= 'done' and status ~= 'error' then return 'live' end
run_commands(2)  -- first: Redis may refuse one, and then nothing has been deleted and the call can be repeated
local timestamp = now()
local _, sid = epochs_key(KEYS[1])
tell(KEYS[1], sid, cursor or '', timestamp, '"kind":"removed"}')
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
index_waiting(KEYS[1])
index_session(KEYS[1])
keep_epoch(KEYS[1], tonumber(epoch) or 0, timestamp, 0)
if nonce then redis.pcall('ZADD', KEYS[5], timestamp, nonce) end  -- pcall: it is removed, whatever type that key has
return 'removed'
