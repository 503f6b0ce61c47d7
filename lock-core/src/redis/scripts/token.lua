-- Issues tokens for locks that are held; all keys are of one slot.
--
-- KEYS: the server key of the slot, the locks.
-- ARGV: newest token known, then an owner for each lock, then the number of the call.
-- Reply: the number of the call and the time (us), then for each lock a text that tells what is wrong, or
--        a number: its token, or 0 if it is not this owner's. 'note': the server key cannot be believed.
--
-- Each is greater than every token of the slot so far, the time of the server at least, and noted before
-- it is given. What is noted besides stays as it is: `exchange.lua` knows whose it is.

-- As in exchange.lua.
local AHEAD, LACKED, DAY, KEPT = 600000000, 2000000, 86400000000, 2592000000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local reply = { { tonumber(ARGV[#ARGV]), now } }
local note = redis.call('GETRANGE', KEYS[1], '0', '127')
local head, known, reign, last, rest = string.match(note, '^((%x+)%.?(%x*) %d+) (%d+) (%d+ ?~?)$')
last = tonumber(last)
-- A day, and twice the longest lease.
local furthest = now + 3 * DAY
if not last or last > furthest then
  for i = 2, #KEYS do
    reply[i] = 'note'
  end
  return reply
end
local newest = tonumber(ARGV[1])
last = math.max(last, newest <= furthest and newest or 0)
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local promoted = string.match(redis.call('INFO', 'replication'), 'master_replid2:(%x+)') or ''
promoted = string.find(promoted, '[^0]') and string.sub(promoted, 1, 16) or ''
if known ~= run_id or (promoted ~= '' and reign ~= promoted) then
  -- The tokens of another server, whose last ones may be unknown here.
  last = math.max(last + LACKED, now + 2 * AHEAD)
end

local first = math.max(last + 1, now)
last = first + #KEYS - 2
redis.call('SET', KEYS[1], head .. ' ' .. string.format('%.0f', last) .. ' ' .. rest, 'PX', KEPT)
for i = 2, #KEYS do
  -- No more is read than an owner has: others can write to the key.
  local holder = redis.pcall('GETRANGE', KEYS[i], '0', '31')
  if holder == ARGV[i] then
    reply[i] = first + i - 2
  elseif type(holder) == 'string' or string.find(holder.err, 'WRONGTYPE', 1, true) then
    reply[i] = 0
  else
    return redis.error_reply(holder.err)
  end
end
return reply
