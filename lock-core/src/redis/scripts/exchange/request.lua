-- Releases, then tries to acquire; all keys are of one slot.
--
-- KEYS: the server key of the slot, the locks to release, the locks to acquire; then the sets of readers of those that are
--       shared, for a cluster alone, which answers that keys are missing while one of them is on its way elsewhere.
-- ARGV: not after (us), lease (ms), quarantine (ms, 0 to ask for none), newest token known, the command that
--       publishes, how many releases, '1' if the clock of the server was seen to jump, '1' to ask
--       whether locks could be granted, how many to grant at most, in a cluster the run_id of a server
--       and how old the youngest reign of a master was (ms) when that server had the slot, or '' and 0,
--       ' 0 ' and what holders are called, then an owner and a space for each lock, then the number of the call. An
--       owner may have a time (ms) behind its space: a lock that is released stays closed for as long, and one that is
--       acquired is granted for as long, which is longer than the lease. In place of the space a reader has `&`, or `+`
--       where it waits, and behind it what it is called; a writer that waits has `?`, and the same when it gives back its
--       place.
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
-- The script is in parts: `shares.lua`, this one, `readers.lua`, `release.lua`, `note.lua`, which finds out which server this is
-- and what it may lack, and `acquire.lua`.
--
-- Others can write to these keys. No more of a value is read than ours have, and no number is
-- believed that ours do not write.
--
-- A lock is a string: the owner (32 bytes), a space, the token (31 digits), a space, by how much it was ahead of the
-- time (us), a space, what the holder is called. Earlier versions read 64 bytes, and write those alone. A client that was refused and waits for its
-- release makes an exclamation mark of the space, and a release without the mark sends no message. The mark
-- ends with the lock; a client that the next one refuses leaves another. One that only tries leaves none.
-- A lock that readers hold has READERS, whom no call is of: a writer, also one of an earlier version, finds a lock that is
-- held, and no other command is needed. Beside it is its set of readers: what each is called, owner first, by when its
-- share ends (us). The lock lasts as long as the longest share at least. The set has the writers that wait as well, by
-- their connections, with times below 0: no share is granted before the time without its sign.
--   No writer beside a reader. A writer is granted a lock only with SET NX: the lock has ended, after every share that was
-- granted or renewed with it, or was removed. It is removed by the last release of a share, or here: where the set is
-- there, and all shares in it have ended. A set that is missing says nothing: its slot is being moved. Nor do the times of
-- another server, whose clock differs, as `shares.lua` has it: what has not been released then ends with the lock, which keeps its
-- time in a move. Shares are granted and renewed only with READERS; the first is granted with SET NX, beside no writer, and
-- removes what is left of earlier ones: a share that was removed, or is of an earlier lock, is not renewed and not released.
--   Which master this is, and what it may lack, is asked before, for shares as for locks: in a quarantine neither is granted,
-- and nothing is removed because shares have ended.
--   A writer takes a place where it is refused by readers, or where a reader waits as well: a reader that waits and that
-- a writer refuses leaves a 0 before by how much the token was ahead, which is the same number to earlier versions, and sends the message
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
-- What follows the owner of a writer that waits.
local WAITER = '?'
-- What follows that of a reader that waits, in a request alone.
local WAITING_READER = '+'
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

-- The longest lease that is known of (us): a server that may have forgotten locks grants none for as long.
local function longest()
  return max(lease + 0, quarantine) * 1000
end

-- What follows a name in what the server says of itself: the name is found without a pattern, which would be
-- tried at each byte.
local function field(info, name, pattern)
  local _, last = find(info, name, 1, true)
  return last and match(info, pattern, last + 1)
end

local function say_of_acquires(answer)
  for i = releases + 1, count do
    say(i, answer)
  end
end
