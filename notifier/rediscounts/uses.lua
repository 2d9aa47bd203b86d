-- Merges last uses of tags and manifests. The later time of each wins, so writing them again
-- changes nothing.
--
-- KEYS[1]   hash: "epoch" -> epoch, registry id -> mark
-- KEYS[2…]  hashes: key of a tag or manifest -> hours of the last push and use
--
-- ARGV[1]   the expected epoch; "" for none
-- ARGV[2]   the new epoch; "" to keep it
-- ARGV[3]   registry id
-- ARGV[4]   its new mark; "" to keep it
-- ARGV[5…]  for each of KEYS[2…]: n, and n times a key, the hours of the last push and use,
--           and the hour of its delete, 0 if it was not deleted
--
-- Returns   {"other"}: Redis has another epoch, and nothing was changed
--           {"type", key}: the key is not a hash, and what follows it was not changed
--           {"ok"}
--
-- A delete is ignored if the last use is not at least two hours older: another registry may
-- have had the push or pull after the delete, and clocks differ. The mark is written last.

local held = redis.call('HGET', KEYS[1], 'epoch') or ''
if held ~= ARGV[1] then return {'other'} end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'epoch', ARGV[2]) end

local at = 5
for i = 2, #KEYS do
  local last = at + 4 * tonumber(ARGV[at])
  for j = at + 1, last, 4 do
    local value = redis.pcall('HGET', KEYS[i], ARGV[j])
    if type(value) == 'table' then
      if string.find(value.err, 'WRONGTYPE', 1, true) then return {'type', KEYS[i]} end
      return redis.error_reply(value.err)
    end
    local pushed, used = string.match(value or '', '^(%d+) (%d+)$')
    pushed, used = tonumber(pushed or 0), tonumber(used or 0)
    local newPushed, newUsed, deleted = tonumber(ARGV[j + 1]), tonumber(ARGV[j + 2]), tonumber(ARGV[j + 3])
    if deleted > 0 then
      if value and math.max(pushed, used) + 1 < deleted then redis.call('HDEL', KEYS[i], ARGV[j]) end
    elseif newPushed > pushed or newUsed > used then
      redis.call('HSET', KEYS[i], ARGV[j],
        string.format('%d %d', math.max(pushed, newPushed), math.max(used, newUsed)))
    end
  end
  at = last + 1
end

if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], ARGV[3], ARGV[4]) end
return {'ok'}
