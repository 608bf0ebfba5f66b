-- What scripts share that do something with an RQ job in the same step. The commands name RQ's keys and the index, which
-- are not among the script's own.

-- Whether the RQ job with this key was canceled by a user of RQ; nil: there is no job to ask.
local function is_canceled(job)
  return job and redis.pcall('HGET', job, 'status') == 'canceled'
end

-- Runs commands that stand in ARGV from a position on: for each the count of its words, then the words.
local function run_commands(at)
  while ARGV[at] do
    local last = at + tonumber(ARGV[at])
    redis.call(unpack(ARGV, at + 1, last))
    at = last + 1
  end
end

