-- Releases, then tries to acquire; all keys are of one slot.
--
-- KEYS: the server key of the slot, the locks to release, the locks to acquire; then the sets of readers of those that are
--       shared, for a cluster alone, which answers that keys are missing while one of them is on its way elsewhere.
-- ARGV: not after (us), lease (ms), quarantine (ms), newest token known, the command that
--       publishes, how many releases, '1' if the clock of the server was seen to jump, '1' to ask
--       whether locks could be granted, how many to grant at most, in a cluster the run_id of a server
--       and how old the youngest reign of a master was (ms) when that server had the slot, or '' and 0,
--       ' 0 ' and what holders are called, then an owner and a space for each lock, then the number of the call. An
--       owner may have a time (ms) behind its space: a lock that is released stays closed for as long, and one that is
--       acquired is granted for as long, which is longer than the lease. In place of the space a reader has `&`, and behind
--       it what it is called; a writer that waits has `?`, and the same when it gives back its place.
-- Reply: the number of the call and the time (us), what is left of the quarantine (ms, below 0 where that
--       may become less by how old reigns are) or why nothing can be granted, the token of what was granted,
--       then for each lock for which something else is to be said than that it was released or acquired its
--       place (from 1; the last counts) and a text that tells what is wrong with it, or a number:
--       released: 1 and as many as heard of it; 0: it was not this owner's
--       acquired: 0: too late; below 0: not granted, and how many ms to wait; 'waits' and such a time, above 0: the
--       same, and the writer has a place now
--       'note': the server key cannot be believed; 'foreign': held by what no script of ours wrote;
--       'moved': nothing is decided until it is known how old reigns are
--
-- Others can write to these keys. No more of a value is read than ours have, and no number is
-- believed that ours do not write.
--
-- A lock is a string: the owner (32 bytes), a space, the token (31 digits), a space, by how much it was ahead of the
-- time (us), a space, what the holder is called. Earlier versions read 64 bytes, and write those alone. A client that was refused may wait for its
-- release: it makes an exclamation mark of the space, and a release without the mark sends no message. The mark
-- ends with the lock; a client that the next one refuses leaves another.
-- A lock that readers hold has READERS, whom no call is of: a writer, also one of an earlier version, finds a lock that is
-- held, and no other command is needed. Beside it is its set of readers: what each is called, owner first, by when its
-- share ends (us). The lock lasts as long as the longest share at least. The set has the writers that wait as well, by
-- their connections, with times below 0: no share is granted before the time without its sign.
--   No writer beside a reader. A writer is granted a lock only with SET NX: the lock has ended, after every share that was
-- granted or renewed with it, or was removed. It is removed by the last release of a share, or here: where the set is
-- there, and all shares in it have ended. A set that is missing says nothing: its slot is being moved. Nor do the times of
-- another server, whose clock differs: the value of the lock ends with the server that granted the first share, until a
-- share is granted or renewed elsewhere; then what has not been released ends with the lock, which keeps its time in a move. Shares are
-- granted and renewed only with READERS; the first is granted with SET NX, beside no writer, and removes what is left of
-- earlier ones: a share that was removed, or is of an earlier lock, is not renewed and not released.
--   Which master this is, and what it may lack, is asked before, for shares as for locks: in a quarantine neither is granted,
-- and nothing is removed because shares have ended.
--   A writer takes a place where it is refused by readers, or where a reader waits as well: a reader that a writer refuses
-- leaves a 0 before by how much the token was ahead, which is the same number to earlier versions, and sends the message
-- of a release once, so that writers that wait already try again and take theirs.
-- A lock that stays closed after its release has NO_OWNER, whom no call is of: it is held by none, as that of a holder
-- that has ended, until it ends. The message of such a release says so: who waits is to learn until when.
-- Tokens grow with each call that grants, and not within it: no lock is granted twice in one, but for shares, whose tokens
-- no storage is shown.
-- Numbers are doubles, exact below 2^53; as text only through `text`, since tostring() rounds to 14 digits.

local OWNER = 32
-- An owner and its space.
local PREFIX = 33
local NO_OWNER = '00000000000000000000000000000000 '
local READERS = 'ffffffffffffffffffffffffffffffff'
-- What follows the owner of a share, and of a writer that waits; how a lock's set of readers is called.
local READER, WAITER, SET = '&', '?', ':readers'
-- How long a reader leaves a lock that is free to the writer that waits (ms).
local COMING = 250
-- By how much the clocks of two servers differ at most (us): 10 minutes.
local AHEAD = 600000000
-- How many grants a server that takes over may lack: five seconds of as many as one server makes.
local LACKED = 2000000
-- As text, which is faster than a number: where an owner ends with what follows it, a lock, a note, and for how
-- long the server key is kept, which outlives every lock: 30 days (ms).
local OWNER_END, LOCK_END, NOTE_END, KEPT = '32', '127', '127', '2592000000'
-- A token is written in as many digits; it mostly has 16.
local ZEROS, BEFORE_16 = '0000000000000000000000000000000', '000000000000000'
-- Longer than a lock is.
local TOO_LONG = 128
-- The longest lease and quarantine (us), and how far tokens are ahead of the clock at most.
local DAY = 86400000000
local NOT_PROMOTED = '0000000000000000000000000000000000000000'

local call, try, find, match, sub, format, max = redis.call, redis.pcall, string.find, string.match, string.sub, string.format, math.max

local time = call('TIME')
local now = time[1] * 1000000 + time[2]
-- Adding makes a number of a text in half the time of tonumber().
local not_after, lease, quarantine = ARGV[1] + 0, ARGV[2], ARGV[3] + 0
local newest, publish, releases = ARGV[4] + 0, ARGV[5], ARGV[6] + 0
local jumped, probe, most = ARGV[7] == '1', ARGV[8] == '1', ARGV[9] + 0
local proven, age = ARGV[10], ARGV[11] * 1000
local OWNERS = 12
local count = #ARGV - OWNERS - 1
local reply, said = { { ARGV[OWNERS + count + 1] + 0, now }, 0, 0 }, 3

local function say(i, answer)
  reply[said + 1], reply[said + 2], said = i, answer, said + 2
end

-- A whole number as text. In two halves where these are exact and fit 32 bits: `%.0f` calculates with big numbers,
-- which takes longer than a command.
local function text(number)
  if number < 100000000 then
    return format('%d', number)
  elseif number < 4503599627370496 then
    return format('%d%08d', math.floor(number / 100000000), number % 100000000)
  end
  return format('%.0f', number)
end

-- What follows a name in what the server says of itself: the name is found without a pattern, which would be
-- tried at each byte.
local function field(info, name, pattern)
  local _, last = find(info, name, 1, true)
  return last and match(info, pattern, last + 1)
end

-- What is done for readers alone. Made where there are any: functions take time to make.
local made, mine
local function of_readers()
  if made then
    return made
  end

  -- Until when (us) the last writer waits, 0 where none does now, and until when the last share lasts, 0 where there is none,
  -- nil where the set is not there; nil and why where it is no set.
  local function ends(set)
    local first = try('ZRANGE', set, '0', '0', 'WITHSCORES')
    if first.err then
      return nil, first.err
    elseif #first == 0 then
      return 0, nil
    end
    local waits, reads = -first[2], call('ZRANGE', set, '-1', '-1', 'WITHSCORES')[2] + 0
    return waits > now and waits or 0, max(reads, 0)
  end

  -- How the value of a lock ends whose shares have all ended by the clock of this server.
  local function by_this_clock()
    mine = mine or ' readers:' .. sub(field(call('INFO', 'server'), '\nrun_id:', '^%x+'), 1, 16)
    return mine
  end

  -- Whether no share lasts any more.
  local function is_over(value, reads)
    return reads and (reads == 0 or reads <= now and sub(value, -25) == by_this_clock())
  end

  -- Makes it last a lease from now at least.
  local function keep(key)
    if call('PTTL', key) < lease + 0 then
      call('PEXPIRE', key, lease)
    end
  end

  -- Gives back a share or the place of a writer: whether it was there, whether the lock has ended with it, whether others
  -- wait for that; or what is wrong with the server.
  local function leave(key, member)
    local is_reader, set = sub(member, PREFIX, PREFIX) == READER, key .. SET
    if not is_reader then
      member = WAITER .. sub(member, 1, 16)
    end
    local removed = try('ZREM', set, member)
    if type(removed) == 'table' and not find(removed.err, 'WRONGTYPE', 1, true) then
      return false, false, false, removed.err
    elseif removed ~= 1 then
      return false
    end
    local waits, reads = ends(set)
    if not is_reader then
      -- Readers were refused for its sake.
      return true, false, waits == 0
    end
    local value = try('GETRANGE', key, '0', LOCK_END)
    if type(value) ~= 'string' or sub(value, 1, OWNER) ~= READERS then
      return false
    end
    local is_last = not reads or is_over(value, reads)
    return true, is_last, is_last and sub(value, PREFIX, PREFIX) == '!'
  end

  -- Grants a share of a lock that is free, or that readers hold: what a SET says, or false.
  local function share(key, member, value, found, is_read, waits, reads)
    local set = key .. SET
    if waits > 0 or (is_read and not reads) or (not is_read and found ~= '') then
      return false
    elseif is_read then
      if sub(found, -25) == by_this_clock() then
        -- What has ended.
        call('ZREMRANGEBYSCORE', set, '(-' .. text(now), text(now))
      elseif sub(found, -8) ~= ' readers' then
        call('SET', key, sub(found, 1, -26) .. ' readers', 'KEEPTTL')
      end
    else
      local first = try('SET', key, READERS .. ' ' .. value .. by_this_clock(), 'PX', lease, 'NX')
      if not first or first.err then
        return first
      end
      call('ZREMRANGEBYSCORE', set, '0', '+inf')
    end
    local added = try('ZADD', set, text(now + lease * 1000), member)
    if type(added) == 'table' then
      if not is_read then
        call('DEL', key)
      end
      return added
    end
    keep(key)
    keep(set)
    return { ok = 'OK' }
  end

  -- Has readers that come later wait for this writer; whether they do.
  local function wait(key, owner)
    local set = key .. SET
    local added = try('ZADD', set, '-' .. text(now + lease * 1000), WAITER .. sub(owner, 1, 16))
    if type(added) == 'table' then
      return false
    end
    keep(set)
    return true
  end

  made = { ends = ends, is_over = is_over, leave = leave, share = share, wait = wait }
  return made
end

local function say_of_acquires(answer)
  for i = releases + 1, count do
    say(i, answer)
  end
end

if releases > 0 then
  local keys, ended, awaited = {}, 0, nil
  local function free(key, kept)
    if not kept then
      ended = ended + 1
      keys[ended] = key
    elseif try('SET', key, NO_OWNER .. call('GETRANGE', key, PREFIX, LOCK_END), 'PX', kept).err then
      -- No memory for the value.
      call('PEXPIRE', key, kept)
    end
  end
  for i = 1, releases do
    local key, owner, kept = KEYS[i + 1], ARGV[i + OWNERS], nil
    if sub(owner, PREFIX, PREFIX) ~= ' ' then
      local is_there, is_last, is_awaited, wrong = of_readers().leave(key, owner)
      if wrong then
        return redis.error_reply(wrong)
      elseif not is_there then
        say(i, 0)
      end
      if is_last then
        free(key)
      end
      if is_awaited then
        awaited = awaited or {}
        awaited[#awaited + 1] = i
      end
    else
      if #owner > PREFIX then
        owner, kept = sub(owner, 1, PREFIX), sub(owner, PREFIX + 1)
      end
      local holder = try('GETRANGE', key, '0', OWNER_END)
      if holder == owner then
        free(key, kept)
      elseif type(holder) == 'string' then
        if holder == sub(owner, 1, OWNER) .. '!' then
          free(key, kept)
          awaited = awaited or {}
          awaited[#awaited + 1] = i
        else
          say(i, 0)
        end
      elseif find(holder.err, 'WRONGTYPE', 1, true) then
        say(i, 0)
      else
        return redis.error_reply(holder.err)
      end
    end
  end
  if ended > 0 then
    call('DEL', unpack(keys))
  end
  if awaited then
    for _, i in ipairs(awaited) do
      local owner = ARGV[i + OWNERS]
      local is_kept = #owner > PREFIX and sub(owner, PREFIX, PREFIX) == ' '
      local heard = try(publish, KEYS[i + 1], is_kept and 'kept' or '')
      if type(heard) == 'number' then
        say(i, heard + 1)
      end
    end
  end
end

if count == releases and not probe and not jumped and proven == '' then
  return reply
end

local late = now > not_after
if late then
  say_of_acquires(0)
  if not jumped and not probe then
    return reply
  end
end

-- Which server this is, and which one the locks are of.
local info = call('INFO', 'server')
local run_id = field(info, '\nrun_id:', '^%x+')
local note = try('GETRANGE', KEYS[1], '0', NOTE_END)
-- A note begins with the process that wrote it and, where that was promoted, by which promotion it was a
-- master; it ends with ~ where the quarantine is for the end of another server, and for nothing else.
local known, reign, till, last, length, other
if type(note) == 'string' then
  known, reign, till, last, length, other = match(note, '^(%x+)%.?(%x*) (%d+) (%d+) (%d+)( ?~?)$')
end
till, last, length = tonumber(till) or 0, tonumber(last) or 0, tonumber(length) or 0
-- A server that was promoted has a second replication id from then on, until it starts again or has had no
-- replica for an hour.
local promoted = field(call('INFO', 'replication'), '\nmaster_replid2:', '^%x+') or ''
promoted = promoted ~= NOT_PROMOTED and find(promoted, '[^0]') and sub(promoted, 1, 16) or ''
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
  say_of_acquires('note')
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
  say_of_acquires('moved')
  return reply
end
if known ~= run_id then
  -- Tokens of another server: its clock may have been ahead of this one, and the last ones that it
  -- issued may be unknown here. Each was its time, or one more than the token before. Where its clock
  -- was ahead by less than AHEAD, the first kind is below `now + AHEAD`. The second kind is of a server
  -- that took over as well, or whose clock went back, and is covered while a replica lacks fewer than
  -- LACKED grants of one slot. Not more: a server that starts again and again must not come to where no
  -- token is believed; LACKED is less than it takes to start. A slot that is moved adds as much.
  -- Two that take over one after the other, where the second lacks all that the first has granted, its first token
  -- included: both go on from the same note, or from one that each wrote itself, and so by their own clocks. The first
  -- grants nothing for a lease, so that the second comes a lease later at least: its tokens are greater where its clock
  -- is behind that of the first by less than that. Not covered: clocks that differ by more, and a first that had
  -- no note at all and so went twice as far, where the second has one and comes within AHEAD. No server can know what
  -- another has lost; clients bring the newest token that they know, each of its own.
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
  local up = math.max(tonumber(field(info, '\nuptime_in_seconds:', '^%d+')) - 1, 0) * 1000000
  till = math.max(now, whole - up)
end
-- A clock that went back must not make it longer.
till = math.min(till, whole)
if till <= now then
  other = ''
end

-- Noted before it is granted: where nothing can be written this fails before anything is granted.
local token = math.max(last + 1, now)
local value_of = text(token)
local of = promoted == '' and run_id or run_id .. '.' .. promoted
local noted = try('SET', KEYS[1], of .. ' ' .. text(till) .. ' ' .. value_of .. ' ' .. text(quarantine) .. (other or ''), 'PX', KEPT)
if noted.err then
  if find(noted.err, 'READONLY', 1, true) then
    -- Another server is the master now: the call fails, so that its connection is left.
    return redis.error_reply(noted.err)
  end
  reply[2] = noted.err
  say_of_acquires(noted.err)
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

if left <= 0 then
  reply[3] = token
end
local granted = 0
-- What follows the owner. In few steps, since it is made for each acquire.
local value = #value_of == 16 and BEFORE_16 or sub(ZEROS, #value_of + 1)
if token == now then
  value = value .. value_of .. ARGV[OWNERS]
else
  value = value .. value_of .. ' ' .. text(token - now) .. sub(ARGV[OWNERS], 3)
end

for i = releases + 1, count do
  local key, owner, set = KEYS[i + 1], ARGV[i + OWNERS], false
  local kind = sub(owner, PREFIX, PREFIX)
  local may = left <= 0 and granted < most
  local prefix, time = owner, lease
  if kind == WAITER then
    prefix = sub(owner, 1, OWNER) .. ' ' .. sub(owner, PREFIX + 1)
  end
  if kind ~= READER and #owner > PREFIX then
    prefix, time = sub(prefix, 1, PREFIX), sub(prefix, PREFIX + 1)
  end
  if may and kind ~= READER then
    set = try('SET', key, prefix .. value, 'PX', time, 'NX')
  end
  local found, held_by, mark, held, rest, is_read, waits, reads
  if not set then
    found = try('GETRANGE', key, '0', LOCK_END)
    if type(found) == 'string' and #found < TOO_LONG then
      held_by, mark, held, rest = match(found, '^(%x+)([ !])(%d+)(.*)$')
    end
    is_read = held_by == READERS
    if type(found) == 'string' and (is_read or kind == READER) then
      waits, reads = of_readers().ends(key .. SET)
      if not waits then
        found = { err = reads }
      elseif may and kind == READER then
        set = made.share(key, owner, sub(value, 1, 31) .. ' ' .. text(token - now), found, is_read, waits, reads)
      elseif may and made.is_over(found, reads) then
        call('DEL', key)
        set = try('SET', key, prefix .. value, 'PX', time, 'NX')
      end
    end
  end
  if not set then
    if type(found) == 'table' then
      say(i, found.err)
    elseif left > 0 then
      say(i, -again)
    else
      -- Also where the owner is the same: each is of one acquire that was sent once.
      local left_of = call('PTTL', key)
      if left_of == -2 then
        -- Free, and not wanted any more, or left to the writer that waits.
        say(i, waits and waits > 0 and -COMING or -1)
      elseif left_of >= 0 and held and #held_by == OWNER and tonumber(held) <= furthest
        and (rest == '' or find(rest, '^ [ -~]+$'))
      then
        local is_shared, again_in = find(rest, '^ 0%d'), max(left_of, 1)
        local is_news = kind == READER and not is_read and not is_shared and rest ~= ''
        if is_news then
          rest = ' 0' .. sub(rest, 2)
        end
        if mark == ' ' or is_news then
          -- Nothing prevents it that has not prevented the note.
          try('SET', key, held_by .. '!' .. held .. rest, 'KEEPTTL')
        end
        if is_news and mark == '!' and waits == 0 then
          try(publish, key, '')
        end
        if is_read then
          local last = kind == READER and waits or reads
          if last and last > now then
            again_in = math.min(again_in, math.ceil((last - now) / 1000))
          end
        end
        if kind == WAITER and (reads or not is_read and is_shared) and of_readers().wait(key, owner) then
          say(i, 'waits ' .. text(math.min(again_in, math.floor(lease / 3))))
        else
          say(i, -again_in)
        end
      else
        say(i, 'foreign')
      end
    end
  elseif set.err then
    say(i, set.err)
  else
    granted = granted + 1
  end
end
return reply
