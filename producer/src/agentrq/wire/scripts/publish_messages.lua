-- publish_messages: publishes messages on their channel as JSON arrays. The loader puts it in front of write_running
-- and write_events, which share it, and before it the function `joined`, which makes one string of 65.
local call = redis.call

-- Publishes list[first] to list[last], of `bytes` bytes together.
local function publish(channel, list, first, last, bytes)
  local count = last - first + 1
  if count == 1 then
    call('PUBLISH', channel, '[' .. list[first] .. ']')
  elseif bytes < count * 1024 then
    call('PUBLISH', channel, '[' .. table.concat(list, ',', first, last) .. ']')
  else
    -- table.concat makes long strings more than once, and Valkey's Lua hashes each from end to end.
    for from = first, last, 32 do
      local pieces, n = {'['}, 1
      for i = from, math.min(from + 31, last) do
        pieces[n + 1], pieces[n + 2], n = list[i], ',', n + 2
      end
      pieces[n] = ']'
      for i = n + 1, 65 do pieces[i] = '' end
      call('PUBLISH', channel, joined(unpack(pieces)))
    end
  end
end
