-- open: a new session's state and its first event, `queued` at 0-1.
-- KEYS  state, events, inbox, commands
-- ARGV  status channel, status JSON, nonce, then field, value, …
-- Answers 'created' (again for a repeat with the same nonce) or 'exists'.
if redis.call('EXISTS', KEYS[1]) == 1 then
  if redis.call('HGET', KEYS[1], 'nonce') == ARGV[3] then return 'created' end
  return 'exists'
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
append(KEYS[2], '0-1', 'status', ARGV[2])
redis.call('HSET', KEYS[1], 'nonce', ARGV[3], 'status', 'queued', 'epoch', 0, 'cursor', '0-1',
  'streamBytes', #ARGV[2], unpack(ARGV, 4))
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 'created'
