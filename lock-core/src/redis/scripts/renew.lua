-- Renews leases; all keys are of one slot.
--
-- KEYS: the server key of the slot, the locks.
-- ARGV: not after (us), lease (ms), then an owner for each lock, then the number of the call.
-- Reply: the number of the call and the time (us), then for each lock 1, or 0 if it is not this owner's; the first alone when
--        it is too late.

local KEPT = '2592000000'

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local reply = { { tonumber(ARGV[#ARGV]), now } }
if now > tonumber(ARGV[1]) then
  return reply
end
-- Fails on a server that must not be written to: what it says of locks means nothing.
redis.call('PEXPIRE', KEYS[1], KEPT)
for i = 2, #KEYS do
  -- No more is read than an owner has: others can write to the key.
  local holder = redis.pcall('GETRANGE', KEYS[i], '0', '31')
  if holder == ARGV[i + 1] then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
    reply[i] = 1
  elseif type(holder) == 'string' or string.find(holder.err, 'WRONGTYPE', 1, true) then
    reply[i] = 0
  else
    return redis.error_reply(holder.err)
  end
end
return reply
