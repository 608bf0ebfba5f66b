-- write_events: writes all that a worker's sessions produced since its last call, for any number of sessions.
-- KEYS  those of write_running; then state, events, inbox, commands of each other session in turn
-- ARGV  max events, max bytes, retention in ms, the time in ms; those of write_running; then for each other session:
--       count of its arguments without this one, session id, epoch, claim, messages channel, status channel,
--       count of state arguments, field, value, …, then runs of events of one kind with consecutive seqs:
--       kind, first seq, count, JSON, …; after a receipt's (always a run of one): inbox entry, command id
-- Kinds: m message; g message that stands for a gap before it; s status; r receipt (its inbox entry is deleted, its
--       command marked); d delta (published, not kept); e the end (a status object's members without the cursor, see
--       finish)
-- In front of an event may stand what the feed is told with it: 'f', the event's seq, count, members (see feed.lua), …
-- Answers a list of what write_running left, and a list with outcome and cursor of each other session in turn:
--   'ok'       the events are in the stream
--   'gap'      events before these are not in the stream; nothing was written, the cursor is the stream's last
--   'fenced'   another writer owns the session
--   'ended'    the session has ended
--   'missing'  there is no such session
--   'behind'   the state's epoch is older than the writer's: Redis came back older
-- A repeated call adds nothing: events that the stream has are skipped, and the state arguments with them.
-- The limits are kept in the state too (maxEvents, maxEventBytes), for the scripts that have none of their own.
local max_events, max_bytes, retention = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local answers = {}

local function write(keys, base, beyond)
  local sid, epoch, claim = ARGV[base], ARGV[base + 1], ARGV[base + 2]
  local messages, statuses = ARGV[base + 3], ARGV[base + 4]
  local fields = base + 6
  local first = fields + tonumber(ARGV[base + 5])
  local seen = redis.call('HMGET', keys[1], 'epoch', 'claim', 'cursor', 'status', 'streamBytes', 'maxEvents',
    'maxEventBytes')
  if not seen[1] then return 'missing', '' end
  if tonumber(seen[1]) < tonumber(epoch) then return 'behind', seen[3] end
  if seen[1] ~= epoch or seen[2] ~= claim then return 'fenced', seen[3] end
  if seen[4] == 'done' or seen[4] == 'error' then return 'ended', seen[3] end
  local stand_epoch, last = place(seen[3])
  if stand_epoch ~= tonumber(epoch) then last = 0 end
  local bytes, cursor, array, size, fresh, repeated = tonumber(seen[5] or '0'), seen[3], {}, 0, false, false
  local prefix = epoch .. '-'
  if seen[6] ~= ARGV[1] or seen[7] ~= ARGV[2] then
    redis.call('HSET', keys[1], 'maxEvents', ARGV[1], 'maxEventBytes', ARGV[2])
  end

  local function collect(json)
    array[#array + 1], size = json, size + #json
  end

  local function publish_array()
    if #array > 0 then
      publish(messages, array, 1, #array, size)
      array, size = {}, 0
    end
  end

  local function set_fields()
    if fields == first then return end
    redis.call('HSET', keys[1], unpack(ARGV, fields, first - 1))
    for name = fields, first - 1, 2 do
      if ARGV[name] == 'requests' then index_waiting(keys[1]) end
    end
  end

  local e = first
  while e < beyond do
    local kind, from, count = ARGV[e], tonumber(ARGV[e + 1]), tonumber(ARGV[e + 2])
    if kind == 'f' and from == last + 1 then
      for i = e + 3, e + 2 + count do tell(keys[1], sid, prefix .. ARGV[e + 1], ARGV[4], ARGV[i]) end
    end
    for i = 0, kind == 'f' and -1 or count - 1 do
      local json, seq = ARGV[e + 3 + i], from + i
      if kind == 'd' then
        if not repeated then collect(json) end
      elseif seq <= last then
        repeated = true
      else
        repeated = false
        if seq ~= last + 1 and kind ~= 'g' then return 'gap', cursor end
        if kind == 'e' then
          publish_array()
          set_fields()
          redis.call('HSET', keys[1], 'streamBytes', string.format('%.0f', bytes))
          return 'ok', finish(keys, sid, statuses, tonumber(epoch), last, json, retention)
        end
        last, fresh, cursor = seq, true, prefix .. string.format('%.0f', seq)
        if kind == 'm' or kind == 'g' then
          bytes = bytes + append(keys[2], cursor, 'message', json)
          collect(json)
        else
          publish_array()
          bytes = bytes + append(keys[2], cursor, kind == 's' and 'status' or 'receipt', json)
          redis.call('PUBLISH', statuses, json)
          if kind == 'r' then
            redis.call('XDEL', keys[3], ARGV[e + 4])
            redis.call('HSET', keys[4], ARGV[e + 5], cursor)
          end
        end
      end
    end
    e = e + 3 + count + (kind == 'r' and 2 or 0)
  end
  publish_array()
  if fresh then
    local dropped
    -- In its first epoch a stream has at most one more entry than places: no need to ask how many.
    if bytes > max_bytes or (epoch ~= '1' or last >= max_events) and call('XLEN', keys[2]) > max_events then
      bytes, dropped = trim(keys[2], bytes, max_events, max_bytes)
    end
    set_fields()
    call('HSET', keys[1], 'cursor', cursor, 'streamBytes', string.format('%.0f', bytes), 'updatedAt', ARGV[4])
    if dropped then redis.call('HSET', keys[1], 'trimmedThrough', dropped) end
  end
  return 'ok', cursor
end

for s = 2 * tonumber(ARGV[5]) + 1, #KEYS, 4 do
  local beyond = at + 1 + tonumber(ARGV[at])
  local outcome, cursor = write({KEYS[s], KEYS[s + 1], KEYS[s + 2], KEYS[s + 3]}, at + 1, beyond)
  answers[#answers + 1] = outcome
  answers[#answers + 1] = cursor or ''
  at = beyond
end
return {left, answers}
