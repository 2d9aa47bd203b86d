-- Makes a process the owner of a registry id, and enters runs under the id.
--
-- KEYS[1]  hash: registry id -> record
-- KEYS[2]  hash: run -> registry id, and "pruned" -> the beginning of the first runs that
--          were not removed (runs.lua)
--
-- ARGV[1]  registry id
-- ARGV[2]  the expected record; "" for none
-- ARGV[3]  the new record
-- ARGV[4…] pairs of a run and "1" to enter it in any case, or "0" to enter it if
--          it is not entered yet and not older than those that were removed
--
-- Returns  {"other"}: Redis has another record, and nothing was changed
--          {"ok", id, …}: the registry id of each run, "" for one that may have been removed
--
-- The record is written last. An interrupted call can be repeated: the runs that it
-- has entered have the same id then.

local held = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if held ~= ARGV[2] then return {'other'} end
local reply = {'ok'}
local pruned = redis.call('HGET', KEYS[2], 'pruned') or ''
for i = 4, #ARGV, 2 do
  local has = redis.call('HGET', KEYS[2], ARGV[i])
  if not has and ARGV[i] < pruned and ARGV[i + 1] == '0' then
    has = ''
  elseif not has or ARGV[i + 1] == '1' then
    redis.call('HSET', KEYS[2], ARGV[i], ARGV[1])
    has = ARGV[1]
  end
  reply[#reply + 1] = has
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return reply
