-- read_job: a job's hash, unless it is larger than any job of agentrq's.
-- KEYS  the job's hash
-- ARGV  most fields, most bytes in all, most bytes of any field but data, exc_info and description
-- Answers fields and values, or a text that says what is too large.
local fields = redis.call('HLEN', KEYS[1])
if fields > tonumber(ARGV[1]) then return fields .. ' fields' end
local size = 0
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  local length = redis.call('HSTRLEN', KEYS[1], name)
  size = size + #name + length
  if length > tonumber(ARGV[3]) and name ~= 'data' and name ~= 'exc_info' and name ~= 'description' then
    return length .. ' bytes in ' .. string.sub(name, 1, 50)
  end
end
if size > tonumber(ARGV[2]) then return size .. ' bytes' end
return redis.call('HGETALL', KEYS[1])
