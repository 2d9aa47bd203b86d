-- Removes runs.
--
-- KEYS[1]   hash: run -> registry id, and "pruned" -> the beginning of the first runs that were
--           not removed
--
-- ARGV[1]   that beginning, unless Redis has a later one
-- ARGV[2…]  the runs
--
-- The beginning is written first, so no run is missing that can be entered again.

local held = redis.call('HGET', KEYS[1], 'pruned') or ''
if held < ARGV[1] then redis.call('HSET', KEYS[1], 'pruned', ARGV[1]) end
for i = 2, #ARGV do redis.call('HDEL', KEYS[1], ARGV[i]) end
return redis.status_reply('OK')
