-- Renews leases; all keys are of one slot.
--
-- KEYS: the server key of the slot, the locks.
-- ARGV: not after (us), lease (ms), then an owner for each lock.
-- Reply: the time (us), then for each lock 1, or 0 if it is not this owner's; the time alone when
--        it is too late.

local OWNER = 32
local KEPT = 2592000000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local reply = { now }
if now > tonumber(ARGV[1]) then
  return reply
end
-- Fails on a server that must not be written to: what it says of locks means nothing.
redis.call('PEXPIRE', KEYS[1], KEPT)
for i = 2, #KEYS do
  local value = redis.pcall('GET', KEYS[i])
  if type(value) == 'string' and string.sub(value, 1, OWNER) == ARGV[i + 1] then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
    reply[i] = 1
  else
    reply[i] = 0
  end
end
return reply
