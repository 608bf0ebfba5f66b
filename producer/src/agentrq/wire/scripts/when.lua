-- when: commands that hold only while a session is as it was seen: by its id there may be none any more, or another.
-- KEYS  state
-- ARGV  'gone', or the status it was seen with ('': whichever it has), its start's nonce, then the commands (see also)
-- Answers 1, or 0: it is not so any more, and nothing was done.
local seen = redis.call('HMGET', KEYS[1], 'status', 'nonce')
if ARGV[1] == 'gone' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
elseif not seen[1] or (seen[2] or '') ~= ARGV[2] or (ARGV[1] ~= '' and seen[1] ~= ARGV[1]) then
  return 0
end
also(3)
return 1
