-- write_running: the fast path of write_events (KEYS, ARGV and answers: see there), put in front of it by the loader.
-- It writes a session that is running and has one run of messages that follows the stream's last entry; write_events
-- does all others. It is flat, and stands before the shared functions are made: for an event that comes alone, Redis
-- spends more on Lua than on its commands.
local ok, left = {}, false
do
  local max_events, max_bytes, at = tonumber(ARGV[1]), tonumber(ARGV[2]), 5
  for s = 1, #KEYS, 4 do
    local beyond, epoch, quick = at + 1 + tonumber(ARGV[at]), ARGV[at + 2], false
    if ARGV[at + 6] == '0' and ARGV[at + 7] == 'm' then
      local from, count, first = tonumber(ARGV[at + 8]), tonumber(ARGV[at + 9]), at + 10
      -- In its first epoch a stream has no more entries than the next place: no need to ask.
      if first + count == beyond
        and (epoch == '1' and from or call('XLEN', KEYS[s + 1])) + count <= max_events then
        local seen = call('HMGET', KEYS[s], 'epoch', 'claim', 'status', 'cursor', 'streamBytes', 'maxEvents',
          'maxEventBytes')
        local before = tonumber(seen[5] or '0')
        local bytes = before
        for i = first, beyond - 1 do bytes = bytes + #ARGV[i] end
        quick = seen[1] == epoch and seen[2] == ARGV[at + 3] and seen[3] == 'running' and bytes <= max_bytes
          and seen[4] == epoch .. '-' .. (from - 1) and seen[6] == ARGV[1] and seen[7] == ARGV[2]
        if quick then
          local events, prefix = KEYS[s + 1], epoch .. '-'
          for i = 0, count - 1 do call('XADD', events, prefix .. (from + i), 'message', ARGV[first + i]) end
          publish(ARGV[at + 4], ARGV, first, beyond - 1, bytes - before)
          ok[s] = prefix .. (from + count - 1)
          call('HSET', KEYS[s], 'cursor', ok[s], 'streamBytes', bytes, 'updatedAt', ARGV[4])
        end
      end
    end
    left = left or not quick
    at = beyond
  end
end
if not left then
  local answers = {}
  for s = 1, #KEYS, 4 do
    answers[#answers + 1] = 'ok'
    answers[#answers + 1] = ok[s]
  end
  return answers
end
