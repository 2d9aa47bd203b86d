-- Writes counts under a registry id. All values are absolute: writing them again changes
-- nothing, and the next call repairs an interrupted one.
--
-- KEYS[1]   hash: registry id -> record
-- KEYS[2…]  hashes of the id
--
-- ARGV[1]   registry id
-- ARGV[2]   the expected record; "" for none
-- ARGV[3]   the new record
-- ARGV[4…]  for each of KEYS[2…]: n, m, n pairs of field and value to set, m fields
--           to delete
--
-- Returns   {"other", record}: Redis has another record, and nothing was changed
--           {"ok", time, key, …}: the clock of Redis in unix seconds, 0 if it is not
--           available, and the keys that were not changed since they are not hashes
--
-- The record is written last.

local held = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if held ~= ARGV[2] then return {'other', held} end

local reply = {'ok', 0}
local function run(key, command, first, last)
  if last < first then return nil end
  local answer = redis.pcall(command, key, unpack(ARGV, first, last))
  return type(answer) == 'table' and answer.err
end

local at = 4
for i = 2, #KEYS do
  local sets, deletes = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local first = at + 2
  at = first + 2 * sets + deletes
  local err = run(KEYS[i], 'HSET', first, first + 2 * sets - 1) or run(KEYS[i], 'HDEL', first + 2 * sets, at - 1)
  if err then
    if not string.find(err, 'WRONGTYPE', 1, true) then return redis.error_reply(err) end
    reply[#reply + 1] = KEYS[i]
  end
end

redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
local now = redis.pcall('TIME')
if type(now) == 'table' and now[1] then reply[2] = tonumber(now[1]) end
return reply
