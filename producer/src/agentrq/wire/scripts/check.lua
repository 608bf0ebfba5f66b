-- check: which sessions do not stand as their owner believes.
-- KEYS  states
-- ARGV  for each state the owner's claim and the cursor last written
-- Answers for those that differ {position in KEYS, epoch, claim, cursor, status, the start's nonce}, '' for what is
-- missing, and no more of it than such a thing has. What is no state at all is left out.
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
