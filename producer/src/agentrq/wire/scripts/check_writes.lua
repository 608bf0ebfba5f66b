-- check_writes: changes nothing. Redis refuses it, as any script with flags that may write, where it takes no writes.
-- KEYS  state
-- Answers 1.
return 1
