-- beat_jobs: the heartbeat of jobs that run, never of one that was removed or has another status.
-- KEYS  jobs' hashes
-- ARGV  the time as RQ writes it
-- Answers the status of each, '' where there is none.
local statuses = {}
for i, key in ipairs(KEYS) do
  local status = redis.pcall('HGET', key, 'status')
  if status == 'started' then redis.call('HSET', key, 'last_heartbeat', ARGV[1]) end
  statuses[i] = type(status) == 'string' and status or ''
end
return statuses
