-- What open_session asks before a client's start: whether its tenant has room (docs/reference/limits.md). How many
-- sessions a tenant has is asked of their states: a member whose session is gone or has ended does not count.
--   PREFIX:limits              hash: tenant, or '*' for all others → JSON
--   PREFIX:tenant:NAME         sorted set: live sessions of a tenant → start in ms
--   PREFIX:tenant-starts:NAME  sorted set: nonces of its starts of the last minute → start in ms
local MINUTE_MS = 60000

local function limits_of(prefix, tenant)
  local named, others = unpack(redis.call('HMGET', prefix .. ':limits', tenant, '*'))
  local read, limits = pcall(cjson.decode, named or others or '{}')
  local found = {}
  for name, most in pairs(read and type(limits) == 'table' and limits or {}) do found[name] = tonumber(most) end
  return found
end

-- How many sessions the tenant has, and how many of them are queued.
local function count_sessions(prefix, tenant)
  local live, queued = 0, 0
  for _, sid in ipairs(redis.call('ZRANGE', prefix .. ':tenant:' .. tenant, 0, -1)) do
    local seen = redis.pcall('HMGET', prefix .. ':{' .. sid .. '}:state', 'status', 'tenant')
    local status = seen[1]
    if not status or status == 'done' or status == 'error' or seen[2] ~= tenant then
      redis.call('ZREM', prefix .. ':tenant:' .. tenant, sid)
    else
      live = live + 1
      if status == 'queued' then queued = queued + 1 end
    end
  end
  return live, queued
end

-- The limit that one more start would pass: 'sessions', 'queued' or 'starts'; nil: there is room.
local function limit_passed(prefix, tenant, limits, timestamp)
  local known = redis.call('ZCARD', prefix .. ':tenant:' .. tenant)
  local sessions, queued = limits.sessions or math.huge, limits.queued or math.huge
  if known >= sessions or known >= queued then
    local live, waiting = count_sessions(prefix, tenant)
    if live >= sessions then return 'sessions' end
    if waiting >= queued then return 'queued' end
  end
  if not limits.startsPerMinute then return nil end
  local before = string.format('%.0f', tonumber(timestamp) - MINUTE_MS)
  if redis.call('ZCOUNT', prefix .. ':tenant-starts:' .. tenant, '(' .. before, '+inf') >= limits.startsPerMinute then
    return 'starts'
  end
end

-- Counts a start; `nonce` is its own.
local function count_start(prefix, tenant, limits, sid, nonce, timestamp)
  redis.call('ZADD', prefix .. ':tenant:' .. tenant, timestamp, sid)
  if limits.startsPerMinute then
    local starts = prefix .. ':tenant-starts:' .. tenant
    redis.call('ZADD', starts, timestamp, nonce)
    redis.call('ZREMRANGEBYSCORE', starts, '-inf', string.format('%.0f', tonumber(timestamp) - MINUTE_MS))
    redis.call('PEXPIRE', starts, MINUTE_MS)
  end
end
