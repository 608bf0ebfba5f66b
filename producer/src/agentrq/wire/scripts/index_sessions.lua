-- index_sessions: has the indexes say what the states of some sessions say (index.lua). A repeated call changes nothing.
-- KEYS  states
-- ARGV  '1' where the ends of these sessions have been seen to; '1' to write entries again that should be there
-- Answers how many sessions these are.
for _, state in ipairs(KEYS) do index_session(state, ARGV[1] == '1', ARGV[2] == '1') end
return #KEYS
