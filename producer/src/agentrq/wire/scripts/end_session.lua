-- end_session: ends a session that no live worker owns. Called by whoever read its state.
-- KEYS  state, events, inbox, commands
-- ARGV  the epoch, token and start's nonce that the caller read, session id, status channel, status, reason, error
--       ('': none), retention in ms, then commands to run in the same step (see run_commands): cancels its RQ job
-- Answers {outcome, cursor}:
--   'ok'       the end was written
--   'changed'  another writer came first, or the id belongs to another session now
--   'ended'    the session had ended already
--   'missing'  there is no such session
local seen = redis.call('HMGET', KEYS[1], 'epoch', 'token', 'status', 'cursor', 'nonce')
if not seen[1] then return {'missing', ''} end
if seen[3] == 'done' or seen[3] == 'error' then return {'ended', seen[4]} end
if seen[1] ~= ARGV[1] or (seen[2] or '') ~= ARGV[2] or (seen[5] or '') ~= ARGV[3] then return {'changed', seen[4]} end
run_commands(10)  -- first: Redis may refuse one, and then nothing has been written and the call can be repeated
local epoch, error = tonumber(seen[1]) + 1, ARGV[8] ~= '' and ARGV[8] or nil
redis.call('HSET', KEYS[1], 'epoch', string.format('%.0f', epoch), 'status', ARGV[6], 'reason', ARGV[7])
if error then redis.call('HSET', KEYS[1], 'error', error) end
redis.call('HDEL', KEYS[1], 'worker', 'token', 'claim', 'pid')
local members = status_members(ARGV[4], ARGV[6], now(), error, ARGV[7])
return {'ok', finish(KEYS, ARGV[4], ARGV[5], epoch, 0, members, tonumber(ARGV[9]))}
