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
-- master; it ends with ~ where the quarantine is for the end of another server, and for nothing else. The end of the
-- quarantine can be over, and is its length after what it is for: a longer one is counted from there.
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
-- Another client may grant for longer than this one does, which may ask for no quarantine of its own.
quarantine = math.max(quarantine, length)
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
local is_longer = known == run_id and quarantine > length
local started
if is_longer or not known then
  -- The server counts whole seconds from a start in whole seconds: it can have been up for one less.
  started = now - math.max(tonumber(field(info, '\nuptime_in_seconds:', '^%d+')) - 1, 0) * 1000000
end
if is_longer then
  -- Noted by clients with shorter quarantines alone: that of this client began when theirs did, which may be over. Clients
  -- without one do not say when; those of earlier versions note that each time, also over what others have noted.
  local began = length > 0 and till - length * 1000 or started
  till = math.max(till, began + quarantine * 1000)
end
if jumped then
  till, other = whole, ''
elseif known and known ~= run_id then
  -- For what another server waits for besides, no reign is an answer.
  other = is_proven and (till <= now or other == ' ~') and ' ~' or ''
  till = other == ' ~' and math.max(0, whole - age) or whole
elseif known and other == ' ~' and is_proven then
  till = math.min(till, math.max(0, whole - age))
elseif not known then
  -- Nothing is known of earlier locks. What was granted before this server started has ended one
  -- lease after its start.
  till = started + quarantine * 1000
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
