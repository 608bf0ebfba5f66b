-- run_if_same_session: runs commands only if the session is still the one that the caller read (its id may be reused).
-- KEYS  state
-- ARGV  'gone', or the status that the caller read ('': any), the start's nonce, then the commands (see run_commands)
-- Answers 1, or 0: it is another session or another status, and nothing was done.
local seen = redis.call('HMGET', KEYS[1], 'status', 'nonce')
if ARGV[1] == 'gone' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
elseif not seen[1] or (seen[2] or '') ~= ARGV[2] or (ARGV[1] ~= '' and seen[1] ~= ARGV[1]) then
  return 0
end
run_commands(3)
return 1
