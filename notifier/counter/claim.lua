-- Makes a process the owner of an id, and enters the runs whose numbers the id
-- takes.
--
-- KEYS[1]  hash, id -> record
-- KEYS[2]  hash, run -> id
--
-- ARGV[1]  id
-- ARGV[2]  the record that must be there; "" for none
-- ARGV[3]  the record to leave there
-- then     run, "1" to enter it whatever is there, "0" to enter it if nobody has, …
--
-- Returns  {"other"}: the record is another, nothing was done
--          {"ok", id, …}: of each run, the id that has it
--
-- Stopped in the middle, it may be called again: a run that was entered is
-- entered under the same id.

local held = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if held ~= ARGV[2] then return {'other'} end
local reply = {'ok'}
for i = 4, #ARGV, 2 do
  local has = redis.call('HGET', KEYS[2], ARGV[i])
  if not has or ARGV[i + 1] == '1' then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[1])
    has = ARGV[1]
  end
  reply[#reply + 1] = has
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return reply
