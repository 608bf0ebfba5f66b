-- write_running: the fast path of write_events, put in front of it by the loader: writes sessions that are running and
-- say one run of messages, or of deltas, right behind the stream's last entry. It is flat, asks for four fields and
-- stands before the shared functions are made: for events that come alone, Redis spends more on arguments and on Lua
-- than on its commands.
-- KEYS  state, events of each such session in turn; then those of write_events
-- ARGV  [1] to [4] as in write_events; [5] the count of such sessions; then for each of them:
--       claim, messages channel, cursor before the run, the run's last cursor, most entries that the stream may have
--       before it ('': not asked), first seq ('': deltas), count, JSON, …; then those of write_events
-- Of these sessions it answers the numbers (from 1) of those it left as they are: they have to be written by
-- write_events, which finds out why.
local left, at = {}, 6
do
  local max_bytes, running = tonumber(ARGV[2]), tonumber(ARGV[5])
  for s = 1, running do
    local state, events, last = KEYS[2 * s - 1], KEYS[2 * s], ARGV[at + 3]
    local count, first, size = tonumber(ARGV[at + 6]), at + 7, 0
    local beyond = first + count
    for i = first, beyond - 1 do size = size + #ARGV[i] end
    -- The claim is one owner's alone, and a cursor has its epoch: this is the fence.
    local seen = call('HMGET', state, 'claim', 'status', 'cursor', 'streamBytes')
    local quick = seen[1] == ARGV[at] and seen[2] == 'running' and seen[3] == ARGV[at + 2]
    if quick and ARGV[at + 5] ~= '' then
      local bytes = (tonumber(seen[4]) or 0) + size
      quick = bytes <= max_bytes and (ARGV[at + 4] == '' or call('XLEN', events) <= tonumber(ARGV[at + 4]))
      if quick then
        if count > 1 then
          local from, prefix = tonumber(ARGV[at + 5]), string.match(last, '^%d+%-')
          for i = 0, count - 2 do call('XADD', events, prefix .. (from + i), 'message', ARGV[first + i]) end
        end
        call('XADD', events, last, 'message', ARGV[beyond - 1])
        call('HSET', state, 'cursor', last, 'streamBytes', bytes, 'updatedAt', ARGV[4])
      end
    end
    if quick then
      publish(ARGV[at + 1], ARGV, first, beyond - 1, size)
    else
      left[#left + 1] = s
    end
    at = beyond
  end
  if #KEYS == 2 * running then return {left, {}} end
end
