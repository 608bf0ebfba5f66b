-- What the scripts share; put in front of each of them. Touches only keys its callers were given, `also` apart: its
-- commands name RQ's keys and the index, which in a cluster would lie elsewhere.
-- A session's keys come in this order everywhere: state, events, inbox, commands.

local function place(cursor)
  local epoch, seq = string.match(cursor or '', '^(%d+)-(%d+)$')
  return tonumber(epoch), tonumber(seq)
end

local function now()
  local time = redis.call('TIME')
  return time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000))
end

-- Commands that a step brings with it, from an argument on: for each the count of its words, then the words.
local function also(at)
  while ARGV[at] do
    local last = at + tonumber(ARGV[at])
    redis.call(unpack(ARGV, at + 1, last))
    at = last + 1
  end
end

-- One event into the stream; answers its size in bytes.
local function append(events, cursor, field, json)
  redis.call('XADD', events, cursor, field, json)
  return #json
end

-- Keep at most max_events entries and max_bytes bytes, the newest always; answers the bytes kept
-- and the newest cursor dropped (nil: none).
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

-- Events of these many bytes were appended by a script that has no caps of its own: the stream is kept within those
-- it was last written under (state fields maxEvents, maxEventBytes; a session nobody wrote has none).
local function account(keys, bytes)
  local seen = redis.call('HMGET', keys[1], 'streamBytes', 'maxEvents', 'maxEventBytes')
  local dropped
  bytes = bytes + (tonumber(seen[1]) or 0)
  bytes, dropped = trim(keys[2], bytes, tonumber(seen[2]) or math.huge, tonumber(seen[3]) or math.huge)
  redis.call('HSET', keys[1], 'streamBytes', string.format('%.0f', bytes))
  if dropped then redis.call('HSET', keys[1], 'trimmedThrough', dropped) end
end

local function receipt_json(cursor, sid, id, command, outcome, reason, timestamp)
  local json = '{"cursor":"' .. cursor .. '","sessionId":"' .. sid .. '","commandId":' .. cjson.encode(id)
    .. ',"command":' .. cjson.encode(command) .. ',"outcome":"' .. outcome .. '"'
  if reason then json = json .. ',"reason":' .. cjson.encode(reason) end
  return json .. ',"timestamp":' .. timestamp .. '}'
end

-- The end of a session: a receipt for every command left, then the status, the stream's last event; then
-- the keys' time runs. `tail` is the status object without its cursor: '"sessionId":…}'. Answers the cursor.
local function finish(keys, sid, channel, epoch, seq, tail, retention)
  local timestamp, bytes = now(), 0
  for _, entry in ipairs(redis.call('XRANGE', keys[3], '-', '+')) do
    local read, command = pcall(cjson.decode, entry[2][2] or '')
    if read and type(command) == 'table' and type(command.commandId) == 'string' then
      seq = seq + 1
      local cursor, name = string.format('%.0f-%.0f', epoch, seq), command.command
      if type(name) ~= 'string' then name = 'unknown' end
      local stop = name == 'stop'
      local json = receipt_json(cursor, sid, command.commandId, name, stop and 'applied' or 'expired',
        not stop and 'the session has ended' or nil, timestamp)
      bytes = bytes + append(keys[2], cursor, 'receipt', json)
      redis.call('HSET', keys[4], command.commandId, cursor)
      redis.call('PUBLISH', channel, json)
    end
  end
  seq = seq + 1
  local cursor = string.format('%.0f-%.0f', epoch, seq)
  local json = '{"cursor":"' .. cursor .. '",' .. tail
  bytes = bytes + append(keys[2], cursor, 'status', json)
  redis.call('DEL', keys[3])
  redis.call('HSET', keys[1], 'cursor', cursor, 'updatedAt', timestamp, 'endedAt', timestamp, 'pendingApprovals', 0)
  account(keys, bytes)
  redis.call('PUBLISH', channel, json)
  for _, key in ipairs(keys) do redis.call('PEXPIRE', key, retention) end
  return cursor
end
