-- find_owned_sessions: finds those of many sessions that one worker owns and that have not ended.
-- KEYS  states
-- ARGV  the worker's token
-- Answers their positions in KEYS. A key that is not a hash is left out.
local found = {}
for i, key in ipairs(KEYS) do
  local seen = redis.pcall('HMGET', key, 'token', 'status')
  if not seen.err and seen[1] == ARGV[1] and seen[2] ~= 'done' and seen[2] ~= 'error' then found[#found + 1] = i end
end
return found
