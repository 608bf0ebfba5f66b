-- What scripts share that tell the feed what happened to a session (docs/reference/feed.md). The feed stands beside the
-- index and is not among the keys that scripts are given. `members`: what is the kind's own, up to the closing brace.
local function tell(state, sid, cursor, timestamp, members)
  local seen = redis.call('HMGET', state, 'provider', 'tenant', 'user', 'project')
  local json = '{"sessionId":"' .. sid .. '","cursor":"' .. cursor .. '","time":' .. timestamp
  if seen[1] and #seen[1] <= 64 then json = json .. ',"provider":' .. cjson.encode(seen[1]) end
  for i, name in ipairs({'tenant', 'user', 'project'}) do
    if seen[i + 1] then json = json .. ',"' .. name .. '":' .. cjson.encode(seen[i + 1]) end
  end
  -- pcall: a key of another type, or a user who may not write it, must not stand in a session's way.
  redis.pcall('XADD', string.match(state, '^(.*):{[^{}]*}:state$') .. ':feed', '*', 'entry', json .. ',' .. members)
end
