-- claim_session: makes a worker the session's owner: a new epoch, with its first events.
-- KEYS  state, events, inbox, commands, the RQ job
-- ARGV  worker name, worker token, a nonce of this claim; the epoch, token and start's nonce that the worker read;
--       status channel, session id
-- Answers {outcome, epoch, cursor} and, where it is claimed, the time of the claim in ms:
--   'claimed'  also for a repeated call (the same claim)
--   'taken'    another claim came first, or the id belongs to another session now
--   'ended'    the session has ended
--   'canceled' its RQ job was canceled
--   'missing'  there is no such session
local seen = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'status', 'cursor', 'startedAt', 'claim', 'nonce',
  'updatedAt')
if not seen[1] then return {'missing', '', ''} end
if seen[3] == 'done' or seen[3] == 'error' then return {'ended', seen[1], seen[4]} end
local token = seen[2] or ''
if token == ARGV[2] and seen[6] == ARGV[3] then return {'claimed', seen[1], seen[4], seen[8]} end
if seen[1] ~= ARGV[4] or token ~= ARGV[5] or (seen[7] or '') ~= ARGV[6] then return {'taken', seen[1], seen[4]} end
if is_canceled(KEYS[5]) then return {'canceled', seen[1], seen[4]} end
local epoch, seq, bytes, timestamp = tonumber(seen[1]) + 1, 0, 0, now()
local statuses = seen[3] == 'queued' and {'starting'} or {'recovering', 'starting'}
local cursor
for _, status in ipairs(statuses) do
  seq = seq + 1
  cursor = string.format('%.0f-%.0f', epoch, seq)
  local json = with_cursor(cursor, status_members(ARGV[8], status, timestamp))
  bytes = bytes + append(KEYS[2], cursor, 'status', json)
  redis.call('PUBLISH', ARGV[7], json)
  tell(KEYS[1], ARGV[8], cursor, timestamp, '"kind":"status","status":"' .. status .. '"}')
end
redis.call('HSET', KEYS[1], 'epoch', string.format('%.0f', epoch), 'cursor', cursor, 'status', 'starting',
  'worker', ARGV[1], 'token', ARGV[2], 'claim', ARGV[3], 'startedAt', seen[5] or timestamp, 'updatedAt', timestamp)
redis.call('HDEL', KEYS[1], 'pid')
-- An owner that was lost left its token; one that handed the session over removed it.
if token ~= '' then redis.call('HINCRBY', KEYS[1], 'recoveries', 1) end
account(KEYS, bytes)
index_session(KEYS[1])
return {'claimed', string.format('%.0f', epoch), cursor, timestamp}
