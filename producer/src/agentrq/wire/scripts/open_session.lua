-- open_session: gives a new session its state and its first event, `queued`, and puts it into the index.
-- KEYS  state, events, inbox, commands, index; for a start that came by RQ also its job: without it nothing is done
-- ARGV  session id, status channel, a nonce of this start, count of state arguments, field, value, …,
--       then commands to run in the same step (see run_commands): they enqueue its RQ job
-- Answers 'created' (also for a repeated call, by its nonce), 'exists', 'full LIMIT' where its tenant has no room (see
-- limits.lua; a start that came by RQ is counted, not refused), or what became of the RQ job meanwhile: 'gone'
-- (removed) or 'canceled'.
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('HGET', KEYS[1], 'nonce') == ARGV[3] then return 'created' end
  return 'exists'
end
if KEYS[6] and redis.call('HEXISTS', KEYS[6], 'data') == 0 then return 'gone' end
if is_canceled(KEYS[6]) then return 'canceled' end
local last, timestamp = 4 + tonumber(ARGV[4]), now()
local prefix, tenant = string.match(KEYS[1], '^(.*):{[^{}]*}:state$'), nil
for i = 5, last, 2 do
  if ARGV[i] == 'tenant' then tenant = ARGV[i + 1] end
end
local limits = tenant and limits_of(prefix, tenant)
local passed = tenant and not KEYS[6] and limit_passed(prefix, tenant, limits, timestamp)
if passed then return 'full ' .. passed end
-- First what Redis may refuse (other types): then nothing has been written and the call can be repeated.
redis.call('ZADD', KEYS[5], timestamp, ARGV[1])
run_commands(last + 1)
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
local epoch = string.format('%.0f', last_epoch(KEYS[1]) + 1)
local cursor = epoch .. '-1'
local json = with_cursor(cursor, status_members(ARGV[1], 'queued', timestamp))
append(KEYS[2], cursor, 'status', json)
redis.call('HSET', KEYS[1], 'nonce', ARGV[3], 'status', 'queued', 'epoch', epoch, 'cursor', cursor,
  'streamBytes', #json, 'createdAt', timestamp, 'updatedAt', timestamp, unpack(ARGV, 5, last))
if tenant then count_start(prefix, tenant, limits, ARGV[1], ARGV[3], timestamp) end
redis.call('PUBLISH', ARGV[2], json)
index_session(KEYS[1])
tell(KEYS[1], ARGV[1], cursor, timestamp, '"kind":"started","status":"queued"}')
return 'created'
