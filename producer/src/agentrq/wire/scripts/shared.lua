-- What the scripts share; the loader puts it in front of each. It touches only keys that its callers were given, but
-- for those that are beside all sessions: the epochs of ended sessions and the indexes. Everywhere a session's keys come
-- in this order: state, events, inbox, commands.

-- The prefix of all names and the session's id, of the key of its state.
local function parts(state)
  return string.match(state, '^(.*):{([^{}]*)}:state$')
end

-- The last epoch of an ended or removed session is kept for a week after its state is gone, in a sorted set beside the
-- index: a later session by the same id begins above it, so that no cursor of the earlier one means a place in the
-- later one. The score holds two numbers: until when it is kept, in minutes, times 2^24, plus the epoch.
local KEPT_MS, EPOCHS = 7 * 86400 * 1000, 2 ^ 24

local function epochs_key(state)
  local prefix, sid = parts(state)
  return prefix .. ':epochs', sid
end

-- The last epoch of the id's earlier session, -1 where none is known.
local function last_epoch(state)
  local score = redis.pcall('ZSCORE', epochs_key(state))
  return type(score) == 'string' and tonumber(score) % EPOCHS or -1
end

-- pcall: a key of another type, or a user who may not write it, must not stand in the way of an end.
local function keep_epoch(state, epoch, timestamp, retention)
  local key, sid = epochs_key(state)
  local minutes = math.floor((tonumber(timestamp) + retention + KEPT_MS) / 60000)
  redis.pcall('ZADD', key, string.format('%.0f', minutes * EPOCHS + math.min(epoch, EPOCHS - 1)), sid)
  redis.pcall('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', tonumber(timestamp) / 60000 * EPOCHS))
  redis.pcall('PEXPIRE', key, KEPT_MS + retention)
end

-- The index of the sessions that wait for an answer: each with the time at which the oldest of its open requests was
-- asked. (An owner that does not know `requests` has the ids in openRequests only.) pcall: as in keep_epoch; a state of
-- another type waits for nothing.
local function index_waiting(state)
  local prefix, sid = parts(state)
  if not sid then return end
  local seen = redis.pcall('HMGET', state, 'requests', 'openRequests', 'status', 'updatedAt')
  local oldest
  if seen[3] and seen[3] ~= 'done' and seen[3] ~= 'error' then
    local read, requests = pcall(cjson.decode, seen[1] or '')
    for _, request in ipairs(read and type(requests) == 'table' and requests or {}) do
      local asked = type(request) == 'table' and tonumber(request.askedAt)
      if asked and not (oldest and oldest <= asked) then oldest = asked end
    end
    if not seen[1] and seen[2] and seen[2] ~= '[]' then oldest = tonumber(seen[4]) end
  end
  if oldest then
    redis.pcall('ZADD', prefix .. ':waiting', string.format('%.0f', oldest), sid)
  else
    redis.pcall('ZREM', prefix .. ':waiting', sid)
  end
end

local function place(cursor)
  local epoch, seq = string.match(cursor or '', '^(%d+)-(%d+)$')
  return tonumber(epoch), tonumber(seq)
end

-- Redis's time, in ms, as text.
local function now()
  local time = redis.call('TIME')
  return time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000))
end

-- The members of a status object but for its cursor, up to the closing brace; see with_cursor.
local function status_members(sid, status, timestamp, error, reason)
  return '"sessionId":"' .. sid .. '","status":"' .. status .. '","timestamp":' .. timestamp
    .. (error and ',"error":' .. cjson.encode(error) or '') .. (reason and ',"reason":"' .. reason .. '"' or '') .. '}'
end

local function receipt_members(sid, id, command, outcome, timestamp, reason)
  return '"sessionId":"' .. sid .. '","commandId":' .. cjson.encode(id) .. ',"command":' .. cjson.encode(command)
    .. ',"outcome":"' .. outcome .. '","timestamp":' .. timestamp
    .. (reason and ',"reason":' .. cjson.encode(reason) or '') .. '}'
end

-- The JSON of a status or a receipt.
local function with_cursor(cursor, members)
  return '{"cursor":"' .. cursor .. '",' .. members
end

-- Appends one event to the stream; returns its size in bytes.
local function append(events, cursor, field, json)
  redis.call('XADD', events, cursor, field, json)
  return #json
end

-- Keeps at most max_events entries and max_bytes bytes, the newest entry always; returns the bytes kept and the newest
-- cursor dropped (nil: none).
local function trim(events, bytes, max_events, max_bytes)
  local length, dropped = redis.call('XLEN', events), nil
  while length > 1 and (length > max_events or bytes > max_bytes) do
    local count = math.min(math.max(length - max_events, 1), 64)
    for _, entry in ipairs(redis.call('XRANGE', events, '-', '+', 'COUNT', count)) do
      if length <= 1 or (length <= max_events and bytes <= max_bytes) then break end
      length, bytes, dropped = length - 1, bytes - #entry[2][2], entry[1]
    end
    local epoch, seq = place(dropped)
    redis.call('XTRIM', events, 'MINID', string.format('%.0f-%.0f', epoch, seq + 1))
  end
  return bytes, dropped
end

-- Counts bytes that a script without limits of its own appended, and trims the stream to the limits of its last writer
-- (state fields maxEvents, maxEventBytes; absent before the first write).
local function account(keys, bytes)
  local seen = redis.call('HMGET', keys[1], 'streamBytes', 'maxEvents', 'maxEventBytes')
  local dropped
  bytes = bytes + (tonumber(seen[1]) or 0)
  bytes, dropped = trim(keys[2], bytes, tonumber(seen[2]) or math.huge, tonumber(seen[3]) or math.huge)
  redis.call('HSET', keys[1], 'streamBytes', string.format('%.0f', bytes))
  if dropped then redis.call('HSET', keys[1], 'trimmedThrough', dropped) end
end

-- Tells the feed that a session has ended, as its state says, and that its turn was cut if one was under way. It counts
-- for its tenant no longer.
local function tell_end(state, sid, cursor, timestamp)
  local seen = redis.call('HMGET', state, 'status', 'reason', 'turn', 'tenant')
  if seen[4] then
    redis.pcall('ZREM', string.match(state, '^(.*):{[^{}]*}:state$') .. ':tenant:' .. seen[4], sid)  -- see limits.lua
  end
  if seen[3] == '1' then
    tell(state, sid, cursor, timestamp, '"kind":"turn","turn":"cut","inputTokens":0,"outputTokens":0,"basis":"unknown"}')
  end
  tell(state, sid, cursor, timestamp,
    '"kind":"ended","status":"' .. seen[1] .. '"' .. (seen[2] and ',"reason":"' .. seen[2] .. '"' or '') .. '}')
end

-- Writes a session's end: a receipt for every command left in the inbox, then the status, which is the stream's last
-- event; then the keys expire after the retention. `members`: the status object's, see status_members. Returns the
-- end's cursor.
local function finish(keys, sid, channel, epoch, seq, members, retention)
  local timestamp, bytes = now(), 0
  for _, entry in ipairs(redis.call('XRANGE', keys[3], '-', '+')) do
    local read, command = pcall(cjson.decode, entry[2][2] or '')
    if read and type(command) == 'table' and type(command.commandId) == 'string' then
      seq = seq + 1
      local cursor, name = string.format('%.0f-%.0f', epoch, seq), command.command
      if type(name) ~= 'string' then name = 'unknown' end
      local stop = name == 'stop'
      local json = with_cursor(cursor, receipt_members(sid, command.commandId, name, stop and 'applied' or 'expired',
        timestamp, not stop and 'the session has ended' or nil))
      bytes = bytes + append(keys[2], cursor, 'receipt', json)
      redis.call('HSET', keys[4], command.commandId, cursor)
      redis.call('PUBLISH', channel, json)
    end
  end
  seq = seq + 1
  local cursor = string.format('%.0f-%.0f', epoch, seq)
  local json = with_cursor(cursor, members)
  bytes = bytes + append(keys[2], cursor, 'status', json)
  redis.call('DEL', keys[3])
  redis.call('HSET', keys[1], 'cursor', cursor, 'updatedAt', timestamp, 'endedAt', timestamp, 'pendingApprovals', 0)
  redis.call('HDEL', keys[1], 'requests', 'openRequests', 'kept')
  index_waiting(keys[1])
  account(keys, bytes)
  redis.call('PUBLISH', channel, json)
  for _, key in ipairs(keys) do redis.call('PEXPIRE', key, retention) end
  keep_epoch(keys[1], epoch, timestamp, retention)
  tell_end(keys[1], sid, cursor, timestamp)
  return cursor
end
