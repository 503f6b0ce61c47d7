-- Releases, then tries to acquire; all keys are of one slot.
--
-- KEYS: the server key of the slot, the locks to release, the locks to acquire.
-- ARGV: not after (us), lease (ms), quarantine (ms), newest token known, the command that
--       publishes, how many releases, '1' if the clock of the server was seen to jump, '1' to ask
--       whether locks could be granted, how many to grant at most, in a cluster the run_id of a server
--       and how old the youngest reign of a master was (ms) when that server had the slot, or '' and 0,
--       then an owner for each lock, then the number of the call.
-- Reply: the number of the call and the time (us), what is left of the quarantine (ms, below 0 where that
--       may become less by how old reigns are) or why nothing can be granted, then for each lock a text
--       that tells what is wrong with it, or a number:
--       released: 1 and as many as heard of it; 0: it was not this owner's
--       acquired: its token; 0: too late; below 0: not granted, and how many ms to wait
--       'note': the server key cannot be believed; 'foreign': held by what no script of ours wrote;
--       'moved': nothing is decided until it is known how old reigns are
--
-- Others can write to these keys. No more of a value is read than ours have, and no number is
-- believed that ours do not write.
--
-- A lock is a string: the owner (32 bytes), a space, the token. Numbers are doubles, exact below
-- 2^53; as text only through %.0f, since tostring() rounds to 14 digits.

local OWNER = 32
-- By how much the clocks of two servers differ at most (us): 10 minutes.
local AHEAD = 600000000
-- How many grants a server that takes over may lack: five seconds of as many as one server makes.
local LACKED = 2000000
-- Where an owner ends, a lock, a note: as text, which is faster than a number.
local OWNER_END, LOCK_END, NOTE_END = '31', '63', '127'
-- The longest lease and quarantine (us), and how far tokens are ahead of the clock at most.
local DAY = 86400000000
-- The server key outlives every lock: 30 days.
local KEPT = 2592000000

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local not_after, lease, quarantine = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local newest, publish, releases = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local jumped, probe, most = ARGV[7] == '1', ARGV[8] == '1', tonumber(ARGV[9])
local proven, age = ARGV[10], tonumber(ARGV[11]) * 1000
local OWNERS = 11
local count = #KEYS - 1
local reply = { { tonumber(ARGV[#ARGV]), now }, 0 }

if releases > 0 then
  local ended, keys, ask = {}, {}, redis.pcall
  for i = 1, releases do
    local holder = ask('GETRANGE', KEYS[i + 1], '0', OWNER_END)
    if holder == ARGV[i + OWNERS] then
      ended[#ended + 1], keys[#keys + 1] = i, KEYS[i + 1]
    elseif type(holder) == 'string' or string.find(holder.err, 'WRONGTYPE', 1, true) then
      reply[i + 2] = 0
    else
      return redis.error_reply(holder.err)
    end
  end
  if #keys > 0 then
    redis.call('DEL', unpack(keys))
  end
  for at, i in ipairs(ended) do
    local heard = redis.pcall(publish, keys[at], '')
    reply[i + 2] = type(heard) == 'number' and heard + 1 or 1
  end
end

if count == releases and not probe and not jumped and proven == '' then
  return reply
end

local late = now > not_after
if late then
  for i = releases + 1, count do
    reply[i + 2] = 0
  end
  if not jumped and not probe then
    return reply
  end
end

-- Which server this is, and which one the locks are of.
local info = redis.call('INFO', 'server')
local run_id = string.match(info, 'run_id:(%x+)')
local note = redis.pcall('GETRANGE', KEYS[1], '0', NOTE_END)
-- A note begins with the process that wrote it and, where that was promoted, by which promotion it was a
-- master; it ends with ~ where the quarantine is for the end of another server, and for nothing else.
local known, reign, till, last, length, other
if type(note) == 'string' then
  known, reign, till, last, length, other = string.match(note, '^(%x+)%.?(%x*) (%d+) (%d+) (%d+)( ?~?)$')
end
till, last, length = tonumber(till) or 0, tonumber(last) or 0, tonumber(length) or 0
-- A server that was promoted has a second replication id from then on, until it starts again or has had no
-- replica for an hour.
local promoted = string.match(redis.call('INFO', 'replication'), 'master_replid2:(%x+)') or ''
promoted = string.find(promoted, '[^0]') and string.sub(promoted, 1, 16) or ''
-- A replica that took over may lack the first grant, and the note with it: it has none, or the one that it
-- wrote when it was a master before.
-- A slot of a cluster that has none may have come from a master that lost all, and the note with it.
local ahead = AHEAD
if (not known and (promoted ~= '' or publish == 'SPUBLISH'))
  or (known == run_id and promoted ~= '' and reign ~= promoted)
then
  -- The tokens of that master can be ahead of its clock by as much as its first one was.
  known, ahead = 'another', 2 * AHEAD
end
-- After a fail-over tokens go on a lease later.
local furthest = now + DAY + 2000 * math.max(tonumber(lease), quarantine)
if math.max(till, last) > furthest or length * 1000 > DAY then
  reply[2] = 'note'
  for i = releases + 1, count do
    reply[i + 2] = 'note'
  end
  return reply
end
-- Of a client that has seen such a note: not brought back where that was deleted.
last = math.max(last, newest <= furthest and newest or 0)
if quarantine > 0 then
  -- Another client may grant for longer than we do.
  quarantine = math.max(quarantine, length)
end
-- What a call proves that came late was proven too long ago.
local is_proven = proven == run_id and not late
if known and known ~= run_id and not jumped and quarantine > 0 and publish == 'SPUBLISH'
  and not is_proven
then
  -- The slot was moved, or its master has ended: the client finds out which.
  reply[2] = 'moved'
  for i = releases + 1, count do
    reply[i + 2] = 'moved'
  end
  return reply
end
if known ~= run_id then
  -- Tokens of another server: its clock may have been ahead of this one, and the last ones that it
  -- issued may be unknown here. Each was its time, or one more than the token before. Where its clock
  -- was ahead by less than AHEAD, the first kind is below `now + AHEAD`. The second kind is of a server
  -- that took over as well, or whose clock went back, and is covered while a replica lacks fewer than
  -- LACKED grants of one slot. Not more: a server that starts again and again must not come to where no
  -- token is believed; LACKED is less than it takes to start. A slot that is moved adds as much.
  last = math.max(last + LACKED, now + ahead)
end
local whole = now + quarantine * 1000
if jumped then
  till, other = whole, ''
elseif known and known ~= run_id then
  -- For what another server waits for besides, no reign is an answer.
  other = is_proven and (till <= now or other == ' ~') and ' ~' or ''
  till = other == ' ~' and math.max(now, whole - age) or whole
elseif known and other == ' ~' and is_proven then
  till = math.min(till, math.max(now, whole - age))
elseif not known then
  -- Nothing is known of earlier locks. What was granted before this server started has ended one
  -- lease after its start. The server counts whole seconds from a start in whole seconds: it can
  -- have been up for one less.
  local up = math.max(tonumber(string.match(info, 'uptime_in_seconds:(%d+)')) - 1, 0) * 1000000
  till = math.max(now, whole - up)
end
-- A clock that went back must not make it longer.
till = math.min(till, whole)
if till <= now then
  other = ''
end

-- A token for each lock that may be granted below. Noted first: where nothing can be written this
-- fails before anything is granted.
local token = math.max(last + 1, now)
last = token + count - releases
local of = promoted == '' and run_id or run_id .. '.' .. promoted
local noted = redis.pcall('SET', KEYS[1], of .. ' ' .. string.format('%.0f', till) .. ' '
  .. string.format('%.0f', last) .. ' ' .. string.format('%.0f', quarantine) .. (other or ''), 'PX', KEPT)
if noted.err then
  if string.find(noted.err, 'READONLY', 1, true) then
    -- Another server is the master now: the call fails, so that its connection is left.
    return redis.error_reply(noted.err)
  end
  reply[2] = noted.err
  for i = releases + 1, count do
    reply[i + 2] = noted.err
  end
  return reply
end
local left = math.max(math.ceil((till - now) / 1000), 0)
local again = left
if other == ' ~' then
  -- To be asked for before it ends: it may become less.
  reply[2], again = -left, math.min(left, 1000)
else
  reply[2] = left
end
if late then
  return reply
end

local granted = 0
for i = releases + 1, count do
  local key, owner, set = KEYS[i + 1], ARGV[i + OWNERS], false
  if left <= 0 and granted < most then
    set = redis.pcall('SET', key, owner .. ' ' .. string.format('%.0f', token), 'PX', lease, 'NX')
  end
  if set then
    reply[i + 2] = set.err or token
    token = token + 1
    granted = granted + (set.err and 0 or 1)
  else
    local value = redis.pcall('GETRANGE', key, '0', LOCK_END)
    local held_by, held
    if type(value) == 'string' then
      held_by, held = string.match(value, '^(%x+) (%d+)$')
      held = tonumber(held)
    end
    if type(value) == 'table' then
      reply[i + 2] = value.err
    elseif left > 0 then
      reply[i + 2] = -again
    else
      -- Also where the owner is the same: each is of one acquire that was sent once.
      local rest = redis.call('PTTL', key)
      if rest == -2 then
        -- Free, and not wanted any more.
        reply[i + 2] = -1
      elseif rest >= 0 and held and #held_by == OWNER and held <= furthest then
        reply[i + 2] = -math.max(rest, 1)
      else
        reply[i + 2] = 'foreign'
      end
    end
  end
end
return reply
