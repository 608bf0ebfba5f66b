-- The indexes of sessions, which lists and the workers' scans read instead of all states. They are beside all sessions:
--   PREFIX:live        sorted set: session → start, of those that have not ended, or whose end no worker has seen yet.
--                      Its member '' has the start up to which all sessions are indexed.
--   PREFIX:index       hash: session → its start and the names of the indexes that have it
--   PREFIX:index:NAME  sorted set: session → start
-- A NAME is KIND:VALUE (agentrq.wire.index_names makes the same), or `metadata` for a session with pairs that have no
-- index. What changes while a session lives has none. pcall: a key of another type, or a user who may not write it, must
-- not stand in the way of a session.
local LONGEST_NAME, LONGEST_PAIR, MOST_PAIRS = 100, 256, 16

local function index_name(kind, value)
  local name = kind .. ':' .. value
  if #name <= LONGEST_NAME and not string.find(value, '[^%w_.@+/=-]') then return name end
  return kind .. ':' .. redis.sha1hex(value)
end

-- The metadata of a state as an array of `KEY=VALUE` in order, and whether some are left out: too long, or too many.
local function metadata_pairs(metadata)
  local found, left_out = {}, false
  for key, value in pairs(metadata) do
    if #tostring(key) + #tostring(value) > LONGEST_PAIR then
      left_out = true
    else
      found[#found + 1] = tostring(key) .. '=' .. tostring(value)
    end
  end
  table.sort(found)
  if #found > MOST_PAIRS then left_out = true end
  return found, left_out
end

-- The names of the indexes that a session belongs to, of its state's fields.
local function index_names(status, provider, worker, metadata)
  local names = {}
  local function add(kind, value)
    if value and value ~= '' then names[#names + 1] = index_name(kind, value) end
  end
  if status == 'done' or status == 'error' then
    add('status', status)
    add('worker', worker)
  end
  add('provider', provider)
  local read, texts = pcall(cjson.decode, metadata or '{}')
  local found, left_out = metadata_pairs(read and type(texts) == 'table' and texts or {})
  for i = 1, math.min(#found, MOST_PAIRS) do add('metadata', found[i]) end
  if left_out then names[#names + 1] = 'metadata' end
  return names
end

-- Has PREFIX:live say what the state says. A session that has ended stays there until its end is `settled`: a worker may
-- have to close its job.
local function index_living(live, sid, status, start, settled, known)
  if status and start and not (status == 'done' or status == 'error') then
    redis.pcall('ZADD', live, start, sid)
  elseif status and start and not settled then
    if not known then redis.pcall('ZADD', live, start, sid) end
  else
    redis.pcall('ZREM', live, sid)
  end
end

-- Drops what only a start needs of a session whose end is settled: RQ's job has it as well, and the prompt may be long.
local function drop_start(state)
  redis.pcall('HDEL', state, 'prompt', 'options')
end

-- Has the indexes say what the state says. With `again` entries are written that should be there already.
local function index_session(state, settled, again)
  local prefix, sid = parts(state)
  if not sid or sid == '' then return end
  local seen = redis.pcall('HMGET', state, 'status', 'provider', 'worker', 'metadata', 'createdAt')
  if seen.err then return end
  local index, names, after = prefix .. ':index', {}, ''
  local status, start = seen[1], tonumber(seen[5]) and seen[5]
  local before = redis.pcall('HGET', index, sid)
  if type(before) ~= 'string' then before = '' end
  index_living(prefix .. ':live', sid, status, start, settled, before ~= '')
  if settled and (status == 'done' or status == 'error') then drop_start(state) end
  if status and start then
    names = index_names(unpack(seen, 1, 4))
    after = start .. ' ' .. table.concat(names, ' ')
  end
  if before == after and not again then return end
  local belongs = {}
  for _, name in ipairs(names) do
    belongs[name] = true
    redis.pcall('ZADD', index .. ':' .. name, start, sid)
  end
  for name in string.gmatch(before, ' ([^ ]+)') do
    if not belongs[name] then redis.pcall('ZREM', index .. ':' .. name, sid) end
  end
  if after == '' then redis.pcall('HDEL', index, sid) else redis.pcall('HSET', index, sid, after) end
end
