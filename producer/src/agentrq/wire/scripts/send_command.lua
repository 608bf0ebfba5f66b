-- send_command: appends one command to a session's inbox and wakes its owner.
-- KEYS  state, events, inbox, commands; for a command that came by RQ also its job
-- ARGV  command id, command JSON, command name, the most entries that an inbox may hold, session id,
--       prefix of the workers' keys, the id of the request that an answer is for
-- Answers {outcome, detail}:
--   'sent'
--   'not open' sent, but an answer to a request that is not open: its owner's receipt will say so
--   'known'    a command of this id was sent before; detail: its receipt's cursor, '' while it waits
--   'ended'    the session has ended; detail: its status
--   'full'     the inbox is full (never for a stop)
--   'canceled' its RQ job was canceled
--   'missing'  there is no such session

-- Whether a request is among the open ones, as the session's owner keeps them: a JSON array of ids.
local function is_open(open_requests)
  if ARGV[3] ~= 'answer' or not open_requests then return true end
  local read, ids = pcall(cjson.decode, open_requests)
  if not read or type(ids) ~= 'table' then return true end
  for _, id in ipairs(ids) do
    if id == ARGV[7] then return true end
  end
  return false
end

local seen = redis.call('HMGET', KEYS[1], 'status', 'worker', 'openRequests')
if not seen[1] then return {'missing', ''} end
local known = redis.call('HGET', KEYS[4], ARGV[1])
if known then return {'known', known} end
if is_canceled(KEYS[5]) then return {'canceled', ''} end
if seen[1] == 'done' or seen[1] == 'error' then return {'ended', seen[1]} end
if ARGV[3] ~= 'stop' and redis.call('XLEN', KEYS[3]) >= tonumber(ARGV[4]) then return {'full', ''} end
redis.call('XADD', KEYS[3], '*', 'command', ARGV[2])
redis.call('HSET', KEYS[4], ARGV[1], '')
if ARGV[3] == 'stop' then redis.call('HSET', KEYS[1], 'stop', 1) end
local worker = seen[2] or ''
if worker == '' then return {'sent', ''} end
redis.call('PUBLISH', ARGV[6] .. worker .. ':wake', ARGV[5])
return {is_open(seen[3]) and 'sent' or 'not open', ''}
