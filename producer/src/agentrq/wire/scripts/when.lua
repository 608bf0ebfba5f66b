-- when: commands that hold only while a session is as it was seen: by its id there may be none any more, or another.
-- KEYS  state
-- ARGV  its createdAt and status as they were seen ('' and '': there was no session; '' as status: whichever it has),
--       then the commands (see also)
-- Answers 1, or 0: it is not so any more, and nothing was done.
local seen = redis.call('HMGET', KEYS[1], 'createdAt', 'status')
if ARGV[1] == '' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
elseif seen[1] ~= ARGV[1] or (ARGV[2] ~= '' and seen[2] ~= ARGV[2]) then
  return 0
end
also(3)
return 1
