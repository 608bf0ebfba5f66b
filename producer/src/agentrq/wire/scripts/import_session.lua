-- import_session: gives an ended session that was exported elsewhere its state; its events are in a stream of their own.
-- KEYS  state, events, inbox, commands, index, the stream with the events
-- ARGV  session id, retention in ms, count of the arguments that follow for the state, field, value, …,
--       then for its commands: id, cursor, …
-- Answers 'imported', 'exists' (a session by this id is there), or 'gone': the stream with the events is not there.
if redis.call('EXISTS', KEYS[1]) == 1 then return 'exists' end
if redis.call('EXISTS', KEYS[6]) == 0 then return 'gone' end
local last = 3 + tonumber(ARGV[3])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
redis.call('RENAME', KEYS[6], KEYS[2])
redis.call('HSET', KEYS[1], unpack(ARGV, 4, last))
for i = last + 1, #ARGV, 2 do redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1]) end
redis.call('ZADD', KEYS[5], tonumber(redis.call('HGET', KEYS[1], 'createdAt')) or now(), ARGV[1])
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[4]}) do redis.call('PEXPIRE', key, ARGV[2]) end
keep_epoch(KEYS[1], tonumber(redis.call('HGET', KEYS[1], 'epoch')) or 0, now(), tonumber(ARGV[2]))
index_session(KEYS[1])
return 'imported'
