-- send: one command into a session's inbox, its owner woken.
-- KEYS  state, events, inbox, commands
-- ARGV  command id, command JSON, command name, most entries an inbox may hold, session id, key prefix of workers
-- Answers {outcome, detail, worker, token, epoch}: 'sent'; 'known' (this id was sent before; detail: its receipt's
-- cursor, '' while it waits); 'ended' (detail: the status); 'full'; 'missing'.
local seen = redis.call('HMGET', KEYS[1], 'status', 'worker', 'token', 'epoch')
if not seen[1] then return {'missing', '', '', '', ''} end
local worker, token, epoch = seen[2] or '', seen[3] or '', seen[4]
local known = redis.call('HGET', KEYS[4], ARGV[1])
if known then return {'known', known, worker, token, epoch} end
if seen[1] == 'done' or seen[1] == 'error' then return {'ended', seen[1], worker, token, epoch} end
if ARGV[3] ~= 'stop' and redis.call('XLEN', KEYS[3]) >= tonumber(ARGV[4]) then
  return {'full', ARGV[4], worker, token, epoch}
end
redis.call('XADD', KEYS[3], '*', 'command', ARGV[2])
redis.call('HSET', KEYS[4], ARGV[1], '')
if ARGV[3] == 'stop' then redis.call('HSET', KEYS[1], 'stop', 1) end
if worker ~= '' then redis.call('PUBLISH', ARGV[6] .. worker .. ':wake', ARGV[5]) end
return {'sent', '', worker, token, epoch}
