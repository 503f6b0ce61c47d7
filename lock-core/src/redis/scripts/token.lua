-- Issues tokens for locks that are held; all keys are of one slot.
--
-- KEYS: the server key of the slot, the locks.
-- ARGV: newest token known, then an owner for each lock, then the number of the call.
-- Reply: the number of the call and the time (us), then for each lock a text that tells what is wrong, or
--        a number: its token, or 0 if it is not this owner's. 'note': the server key cannot be believed;
--        'another': it is of another server, or there is none: `exchange` has to write it first, which
--        alone knows how far the tokens of that server can be.
--
-- Each is greater than every token of the slot so far, the time of the server at least, and noted before
-- it is given. What is noted besides stays as it is.

-- As in `exchange`.
local DAY, KEPT = 86400000000, '2592000000'

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local reply = { { tonumber(ARGV[#ARGV]), now } }

-- What each of this owner's locks is answered; no more is read than an owner has: others can write to the key.
local function answer(of)
  for i = 2, #KEYS do
    local holder = redis.pcall('GETRANGE', KEYS[i], '0', '31')
    if holder == ARGV[i] then
      reply[i] = of(i - 2)
    elseif type(holder) == 'string' or string.find(holder.err, 'WRONGTYPE', 1, true) then
      reply[i] = 0
    else
      return redis.error_reply(holder.err)
    end
  end
  return reply
end

local note = redis.pcall('GETRANGE', KEYS[1], '0', '127')
local head, known, reign, last, rest
if type(note) == 'string' then
  head, known, reign, last, rest = string.match(note, '^((%x+)%.?(%x*) %d+) (%d+) (%d+ ?~?)$')
end
last = tonumber(last)
-- A day, and twice the longest lease.
local furthest = now + 3 * DAY
if note ~= '' and (not last or last > furthest) then
  return answer(function() return 'note' end)
end
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local promoted = string.match(redis.call('INFO', 'replication'), 'master_replid2:(%x+)') or ''
promoted = string.find(promoted, '[^0]') and string.sub(promoted, 1, 16) or ''
if known ~= run_id or (promoted ~= '' and reign ~= promoted) then
  return answer(function() return 'another' end)
end

local newest = tonumber(ARGV[1])
local first = math.max(math.max(last, newest <= furthest and newest or 0) + 1, now)
redis.call('SET', KEYS[1], head .. ' ' .. string.format('%.0f', first + #KEYS - 2) .. ' ' .. rest, 'PX', KEPT)
return answer(function(place) return first + place end)
