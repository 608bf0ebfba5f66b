-- index_waiting: puts sessions into the index of those that wait for an answer, or takes them out, as their states say.
-- KEYS  states
-- Answers how many these are.
for _, key in ipairs(KEYS) do index_waiting(key) end
return #KEYS
