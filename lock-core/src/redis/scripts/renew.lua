-- Renews leases; all keys are of one slot.
--
-- KEYS: the server key of the slot, the locks.
-- ARGV: not after (us), lease (ms), then an owner for each lock, then the number of the call. Behind an owner may stand
--       a time (ms) that is longer than the lease, for which this one is renewed.
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
  local owner, time = ARGV[i + 1], ARGV[2]
  if #owner > 32 then
    owner, time = string.sub(owner, 1, 32), string.sub(owner, 33)
  end
  if holder == owner then
    redis.call('PEXPIRE', KEYS[i], time)
    reply[i] = 1
  elseif type(holder) == 'string' or string.find(holder.err, 'WRONGTYPE', 1, true) then
    reply[i] = 0
  else
    return redis.error_reply(holder.err)
  end
end
return reply
