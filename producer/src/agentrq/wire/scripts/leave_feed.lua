-- leave_feed: a process of a consumer of the feed ends: what it has done is acknowledged, its name is forgotten.
-- KEYS  the feed
-- ARGV  consumer, process, ms of silence after which the name of another process is forgotten too, ids that are done
-- Answers 1. A name that still has entries is kept: they go to another process.
for from = 4, #ARGV, 1000 do
  redis.pcall('XACK', KEYS[1], ARGV[1], unpack(ARGV, from, math.min(from + 999, #ARGV)))
end
local processes = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
for _, process in ipairs(processes.err and {} or processes) do
  local found = {}
  for i = 1, #process, 2 do found[process[i]] = process[i + 1] end
  if found.pending == 0 and (found.name == ARGV[2] or found.idle > tonumber(ARGV[3])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], found.name)
  end
end
return 1
