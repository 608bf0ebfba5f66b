-- write_job: commands on an RQ job's records, all or none: only while its session and the job are as expected.
-- KEYS  the job's hash, the state of its session (absent: the job is not a session's)
-- ARGV  the nonce of the session's start; its status and its claim ('': any); the status that the job must have ('': any
--       but canceled); an id of this step ('': none); then the commands (see run_commands)
-- Answers 'written' (again for a step that was carried out before), 'canceled' (the job was, in RQ), 'changed'.
local job = redis.pcall('HMGET', KEYS[1], 'status', 'agentrq_step')
if job.err then job = {} end
if ARGV[5] ~= '' and job[2] == ARGV[5] then return 'written' end
if KEYS[2] then
  local seen = redis.call('HMGET', KEYS[2], 'status', 'nonce', 'claim')
  if not seen[1] or (seen[2] or '') ~= ARGV[1] or (ARGV[2] ~= '' and seen[1] ~= ARGV[2])
      or (ARGV[3] ~= '' and seen[3] ~= ARGV[3]) then
    return 'changed'
  end
end
if job[1] == 'canceled' then return 'canceled' end
if ARGV[4] ~= '' and job[1] ~= ARGV[4] then return 'changed' end
run_commands(6)
if ARGV[5] ~= '' and redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'agentrq_step', ARGV[5]) end
return 'written'
