-- Replaces what journals contributed to the numbers of some repositories.
-- All keys are in one slot. Nothing is written unless everything that a
-- repository's fields will meet has been looked at: Redis undoes nothing.
--
-- KEYS[1]   hash, store id -> generation
-- KEYS[2]   set of the repositories of this bucket
-- KEYS[3…]  a repository's hash each
--
-- ARGV[1]   store id
-- ARGV[2]   the generation that must be there; "*" for any
-- ARGV[3]   the generation to leave there
-- ARGV[4]   "1": the calls with this flag, together, send all that their
--           journals have; "0": only what changed is sent
-- then, for each of KEYS[3…]: repository, n, and n times
--           journal, field, value. A value of "" forgets the field.
--
-- Returns   {"lost"}: the generation is another, nothing was done
--           {"damaged", key, type}: KEYS[1] or KEYS[2] can't be used, nothing was done
--           {"ok", missing, damaged, ahead}
--             missing: repositories of which this hash has not all that a journal sent; skipped
--             damaged: repository, reason, …; skipped
--             ahead:   how many fields held more than was sent; left as they were
--
-- A contribution never goes down: numbers only grow, so a lower one comes from
-- a disk that was set back, and what was counted stays counted.

local function typeOf(key) return redis.call('TYPE', key).ok end

local t = typeOf(KEYS[1])
if t ~= 'hash' and t ~= 'none' then return {'damaged', KEYS[1], t} end
t = typeOf(KEYS[2])
if t ~= 'set' and t ~= 'none' then return {'damaged', KEYS[2], t} end
if ARGV[2] ~= '*' and redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return {'lost'} end

local whole = ARGV[4] == '1'
local missing, damaged, ahead = {}, {}, 0

local function number(v)
  if v == false then return 0 end
  if #v == 0 or #v > 15 or string.find(v, '[^0-9]') then return nil end
  return tonumber(v)
end

local function apply(key, name, first, n)
  local kind = typeOf(key)
  if kind ~= 'hash' and kind ~= 'none' then return 'is a ' .. kind end

  local marks, seen, fields = {}, {}, {}
  for i = 0, n - 1 do
    local journal, field = ARGV[first + 3 * i], ARGV[first + 3 * i + 1]
    if not seen[journal] then
      seen[journal] = true
      marks[#marks + 1] = 'whole/' .. journal
    end
    fields[#fields + 1] = field
    fields[#fields + 1] = 'from/' .. journal .. '/' .. field
  end
  if not whole then
    for _, m in ipairs(marks) do
      if redis.call('HEXISTS', key, m) == 0 then
        missing[#missing + 1] = name
        return nil
      end
    end
  end
  local held = redis.call('HMGET', key, unpack(fields))
  for i, v in ipairs(held) do
    if not number(v) then return 'has no number at ' .. fields[i] end
  end

  for i = 0, n - 1 do
    local field, from = fields[2 * i + 1], fields[2 * i + 2]
    local value = ARGV[first + 3 * i + 2]
    local sum, old = number(held[2 * i + 1]), number(held[2 * i + 2])
    if value == '' then
      redis.call('HDEL', key, field, from)
    elseif string.sub(field, 1, 5) == 'last/' then
      -- Read again: another journal in this call may have set it.
      sum = number(redis.call('HGET', key, field))
      if tonumber(value) > sum then redis.call('HSET', key, field, value) end
    elseif tonumber(value) > old then
      redis.call('HINCRBY', key, field, string.format('%.0f', tonumber(value) - old))
      redis.call('HSET', key, from, value)
    elseif tonumber(value) < old then
      ahead = ahead + 1
    end
  end
  for _, m in ipairs(marks) do redis.call('HSET', key, m, '1') end
  redis.call('SADD', KEYS[2], name)
  return nil
end

local arg = 5
for k = 3, #KEYS do
  local name, n = ARGV[arg], tonumber(ARGV[arg + 1])
  local reason = apply(KEYS[k], name, arg + 2, n)
  if reason then
    damaged[#damaged + 1] = name
    damaged[#damaged + 1] = reason
  end
  arg = arg + 2 + 3 * n
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return {'ok', missing, damaged, ahead}
