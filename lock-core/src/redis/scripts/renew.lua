-- Renews leases; all keys are of one slot.
--
-- KEYS: the server key of the slot, the locks, then the sets of readers of those that are shared, as in exchange.lua.
-- ARGV: not after (us), lease (ms), then an owner for each lock, then the number of the call. Behind an owner may stand
--       a time (ms) that is longer than the lease, for which this one is renewed; behind that of a reader `&` and what it is
--       called.
-- Reply: the number of the call and the time (us), then for each lock 1, or 0 if it is not this owner's; the first alone when
--        it is too late.

local KEPT = '2592000000'
-- As in exchange.lua.
local READERS, READER, SET = 'ffffffffffffffffffffffffffffffff', '&', ':readers'

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local reply = { { tonumber(ARGV[#ARGV]), now } }
if now > tonumber(ARGV[1]) then
  return reply
end
-- Fails on a server that must not be written to: what it says of locks means nothing.
redis.call('PEXPIRE', KEYS[1], KEPT)

-- Makes it last a lease from now at least.
local function keep(key)
  if redis.call('PTTL', key) < tonumber(ARGV[2]) then
    redis.call('PEXPIRE', key, ARGV[2])
  end
end

-- How the value of a lock ends whose shares all end by the clock of this server.
local mine

-- From now on some shares of this lock end by this clock, and others by that of the server before.
local function mix(key)
  mine = mine or ' readers:' .. string.sub(string.match(redis.call('INFO', 'server'), 'run_id:(%x+)'), 1, 16)
  local value = redis.call('GETRANGE', key, '0', '127')
  if string.sub(value, -25) ~= mine and string.sub(value, -8) ~= ' readers' then
    redis.call('SET', key, string.sub(value, 1, -26) .. ' readers', 'KEEPTTL')
  end
end

-- Renews a share of a lock that readers hold: 1 or 0, or what is wrong. One that has ended is there while no writer has come
-- to its place.
local function renew_share(key, holder, member)
  if holder ~= READERS then
    return 0
  end
  local set = key .. SET
  local ends = redis.pcall('ZSCORE', set, member)
  if type(ends) == 'table' then
    return ends
  elseif not ends then
    return 0
  end
  mix(key)
  redis.call('ZADD', set, string.format('%.0f', now + ARGV[2] * 1000), member)
  keep(key)
  keep(set)
  return 1
end

for i = 2, #ARGV - 2 do
  -- No more is read than an owner has: others can write to the key.
  local holder = redis.pcall('GETRANGE', KEYS[i], '0', '31')
  local owner, time = ARGV[i + 1], ARGV[2]
  local is_reader = string.sub(owner, 33, 33) == READER
  if is_reader and type(holder) == 'string' then
    holder = renew_share(KEYS[i], holder, owner)
  elseif #owner > 32 then
    owner, time = string.sub(owner, 1, 32), string.sub(owner, 33)
  end
  if type(holder) == 'number' then
    reply[i] = holder
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
