-- find_changed_sessions: finds those of an owner's sessions whose state in Redis is not the one that the owner knows.
-- KEYS  states
-- ARGV  for each state the owner's claim and the cursor it wrote last
-- Answers, for each that differs, {position in KEYS, epoch, claim, cursor, status, the start's nonce}, each cut to 64
-- bytes and '' where it is missing. A key that is not a hash is left out.
local differ = {}
for i, key in ipairs(KEYS) do
  local seen = redis.pcall('HMGET', key, 'epoch', 'claim', 'cursor', 'status', 'nonce')
  if not seen.err and (seen[2] ~= ARGV[2 * i - 1] or seen[3] ~= ARGV[2 * i]) then
    local found = {i}
    for field = 1, 5 do found[field + 1] = string.sub(seen[field] or '', 1, 64) end
    differ[#differ + 1] = found
  end
end
return differ
