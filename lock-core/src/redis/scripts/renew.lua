-- Renews leases; all keys are of one slot.
--
-- KEYS: the server key of the slot, the locks, then the sets of readers of those that are shared, as in `exchange`.
-- ARGV: not after (us), lease (ms), then an owner for each lock, then the number of the call. Behind an owner may stand
--       a time (ms) that is longer than the lease, for which this one is renewed; behind that of a reader `&` and what it is
--       called.
-- Reply: the number of the call and the time (us), then for each lock 1, 0 if it is not this owner's, or a text that tells
--        what is wrong with a share; the first alone when it is too late.

local KEPT = '2592000000'

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local reply = { { tonumber(ARGV[#ARGV]), now } }
if now > tonumber(ARGV[1]) then
  return reply
end
-- Fails on a server that must not be written to: what it says of locks means nothing.
redis.call('PEXPIRE', KEYS[1], KEPT)

local shares

-- Renews a share of a lock that readers hold: 1 or 0, or what is wrong. One that has ended is there while no writer has come
-- to its place. The share is renewed after all that the lock needs for it.
local function renew_share(key, holder, member)
  if holder ~= READERS then
    return 0
  end
  shares = shares or shares_of(now, ARGV[2])
  local set = key .. SET
  local ends = redis.pcall('ZSCORE', set, member)
  if not ends or (wrong_of(ends) and string.find(ends.err, 'WRONGTYPE', 1, true)) then
    return 0
  end
  local value = redis.pcall('GETRANGE', key, '0', '127')
  local wrong = wrong_of(ends) or wrong_of(value)
  if not wrong then
    wrong = select(2, shares.count_by_this_clock(key, value))
  end
  return wrong or shares.keep(key) or wrong_of(redis.pcall('ZADD', set, shares.ends, member))
    or shares.keep(set) or 1
end

for i = 2, #ARGV - 2 do
  -- No more is read than an owner has: others can write to the key.
  local holder = redis.pcall('GETRANGE', KEYS[i], '0', '31')
  local owner, time = ARGV[i + 1], ARGV[2]
  local is_reader = string.sub(owner, 33, 33) == READER
  if is_reader and type(holder) == 'string' then
    holder = renew_share(KEYS[i], holder, owner)
    reply[i] = type(holder) == 'table' and holder.err or holder
  elseif #owner > 32 then
    owner, time = string.sub(owner, 1, 32), string.sub(owner, 33)
  end
  if reply[i] then
    -- Of a share.
  elseif holder == owner then
    redis.call('PEXPIRE', KEYS[i], time)
    reply[i] = 1
  elseif type(holder) == 'string' or string.find(holder.err, 'WRONGTYPE', 1, true) then
    reply[i] = 0
  else
    return redis.error_reply(holder.err)
  end
end
return reply
