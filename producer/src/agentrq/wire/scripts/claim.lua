-- claim: a worker becomes the session's owner: a new epoch with its first events.
-- KEYS  state, events, inbox, commands
-- ARGV  worker name, worker token, a nonce of this claim, the epoch, the token and the start's nonce seen before,
--       status channel, session id
-- Answers {outcome, epoch, cursor}: 'claimed' (again for a repeat with the same nonce), 'taken' (somebody else was
-- first, for one this worker by another copy of the job; or it is another session by the same id), 'ended', 'missing'.
local seen = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'status', 'cursor', 'startedAt', 'claim', 'nonce')
if not seen[1] then return {'missing', '', ''} end
if seen[3] == 'done' or seen[3] == 'error' then return {'ended', seen[1], seen[4]} end
local token = seen[2] or ''
if token == ARGV[2] and seen[6] == ARGV[3] then return {'claimed', seen[1], seen[4]} end
if seen[1] ~= ARGV[4] or token ~= ARGV[5] or (seen[7] or '') ~= ARGV[6] then return {'taken', seen[1], seen[4]} end
local epoch, seq, bytes, timestamp = tonumber(seen[1]) + 1, 0, 0, now()
local statuses = seen[3] == 'queued' and {'starting'} or {'recovering', 'starting'}
local cursor
for _, status in ipairs(statuses) do
  seq = seq + 1
  cursor = string.format('%.0f-%.0f', epoch, seq)
  local json = '{"cursor":"' .. cursor .. '","sessionId":"' .. ARGV[8] .. '","status":"' .. status
    .. '","timestamp":' .. timestamp .. '}'
  bytes = bytes + append(KEYS[2], cursor, 'status', json)
  redis.call('PUBLISH', ARGV[7], json)
end
redis.call('HSET', KEYS[1], 'epoch', epoch, 'cursor', cursor, 'status', 'starting', 'worker', ARGV[1],
  'token', ARGV[2], 'claim', ARGV[3], 'startedAt', seen[5] or timestamp, 'updatedAt', timestamp)
redis.call('HDEL', KEYS[1], 'pid')
-- An owner that was lost left its token; one that handed over took it away.
if token ~= '' then redis.call('HINCRBY', KEYS[1], 'recoveries', 1) end
account(KEYS, bytes)
return {'claimed', tostring(epoch), cursor}
