-- What scripts share that tell the feed what happened to a session (docs/reference/feed.md), and that settle what its
-- turns cost (docs/reference/costs.md). Feed, ledger and prices stand beside the index and are not among the keys that
-- scripts are given. pcall: a key of another type, or a user who may not write it, must not stand in a session's way.
local LEDGER_KEPT_MS = 400 * 86400 * 1000

-- The members of a turn, priced by the imported price of its model unless the agent told what it cost.
local function priced(prefix, turn, members)
  if turn.basis ~= 'priced' and turn.basis ~= 'unknown' or not turn.model then return members end
  if turn.inputTokens + turn.outputTokens == 0 then return members end
  local price = redis.pcall('HGET', prefix .. ':prices', turn.model)
  local input, output = string.match(type(price) == 'string' and price or '', '^(%d+) (%d+)$')
  if not input then return members end
  turn.basis = 'priced'
  turn.costNanoUsd = math.floor((turn.inputTokens * input + turn.outputTokens * output) / 1000000 + 0.5)
  return (string.gsub(members, '"basis":.*$', '"basis":"priced","costNanoUsd":' .. string.format('%.0f', turn.costNanoUsd) .. '}'))
end

-- Adds a turn to the ledger of its day: one field for each count of each tenant, user, project, provider, model, basis.
local function settle(prefix, timestamp, payer, turn)
  local ledger = prefix .. ':ledger:' .. string.format('%.0f', math.floor(tonumber(timestamp) / 86400000))
  local function add(kind, count)
    if not count or count == 0 then return end
    local field = {payer[2] or '', payer[3] or '', payer[4] or '', payer[1] or '', turn.model or '', turn.basis, kind}
    redis.pcall('HINCRBY', ledger, cjson.encode(field), string.format('%.0f', count))
  end
  add('turns', 1)
  add('cutTurns', turn.turn == 'cut' and 1)
  add('inputTokens', turn.inputTokens)
  add('outputTokens', turn.outputTokens)
  add('costNanoUsd', turn.costNanoUsd)
  redis.pcall('PEXPIRE', ledger, LEDGER_KEPT_MS)
end

-- `members`: what is the kind's own, up to the closing brace. A turn's end with "basis", and "costNanoUsd" if known.
local function tell(state, sid, cursor, timestamp, members)
  local prefix = string.match(state, '^(.*):{[^{}]*}:state$')
  local seen = redis.call('HMGET', state, 'provider', 'tenant', 'user', 'project')
  if seen[1] and #seen[1] > 64 then seen[1] = false end
  if string.sub(members, 1, 13) == '"kind":"turn"' then
    local turn = cjson.decode('{' .. members)
    members = priced(prefix, turn, members)
    settle(prefix, timestamp, seen, turn)
  end
  local json = '{"sessionId":"' .. sid .. '","cursor":"' .. cursor .. '","time":' .. timestamp
  for i, name in ipairs({'provider', 'tenant', 'user', 'project'}) do
    if seen[i] then json = json .. ',"' .. name .. '":' .. cjson.encode(seen[i]) end
  end
  redis.pcall('XADD', prefix .. ':feed', '*', 'entry', json .. ',' .. members)
end
