-- What is done for readers alone. Made where there are any: functions take time to make. What goes wrong here is said of the
-- entry that it is for; a call that has written goes on. READONLY alone is for all, since nothing was written then.
local made
local function of_readers()
  if made then
    return made
  end
  local shares = shares_of(now, lease)

  -- Until when (us) the last writer waits, 0 where none does now; until when the last share lasts, 0 where there is none,
  -- nil where the set is not there or cannot be read; and why that is.
  local function ends(set)
    local first = try('ZRANGE', set, '0', '0', 'WITHSCORES')
    if first.err then
      return 0, nil, first
    elseif #first == 0 then
      return 0, nil
    end
    local last = try('ZRANGE', set, '-1', '-1', 'WITHSCORES')
    local waits = -first[2]
    return waits > now and waits or 0, max(last[2] + 0, 0)
  end

  -- Until when the last writer waits, of which no place is believed that is further away than a longest lease: it is by the
  -- clock of a server before, or of this one before it was put back, and its writer may be gone. It ends a longest lease
  -- after it was seen, unless its writer asks again. A place that is believed less costs a writer its turn. A share that
  -- is believed less would cost its reader the lock: those are left, and end with it, which the last that is renewed
  -- keeps for a lease.
  local function bounded(set, waits)
    local furthest = now + longest()
    while waits > furthest do
      local first = try('ZRANGE', set, '0', '0')
      if first.err or wrong_of(try('ZADD', set, 'XX', '-' .. text(furthest), first[1])) then
        return waits
      end
      waits = ends(set)
    end
    return waits
  end

  -- Whether no share lasts any more.
  local function is_over(value, reads)
    return reads and (reads == 0 or reads <= now and shares.is_by_this_clock(value))
  end

  -- Gives back a share or the place of a writer: whether it was there, whether the lock has ended with it, whether others
  -- wait for that; or what is wrong.
  local function leave(key, member)
    local is_reader, set = sub(member, PREFIX, PREFIX) == READER, key .. SET
    if not is_reader then
      member = WAITER .. sub(member, 1, 16)
    end
    local removed = try('ZREM', set, member)
    local wrong = wrong_of(removed)
    if wrong and not find(wrong.err, 'WRONGTYPE', 1, true) then
      return false, false, false, wrong
    elseif removed ~= 1 then
      return false
    end
    local waits, reads, unread = ends(set)
    if not is_reader then
      -- Readers were refused for its sake.
      return true, false, waits == 0
    end
    local value = try('GETRANGE', key, '0', LOCK_END)
    if type(value) ~= 'string' or sub(value, 1, OWNER) ~= READERS then
      return false
    end
    -- One that cannot be read ends with the lock.
    local is_last = not unread and (not reads or is_over(value, reads))
    return true, is_last, is_last and sub(value, PREFIX, PREFIX) == '!'
  end

  -- Grants a share of a lock that is free, or that readers hold: what a SET says, or false. A share is one only with the
  -- lock: the first is written before it, and one that joins after all that the lock needs for it. So what fails in
  -- between leaves none. A reader that may not renew or give back its share is granted none.
  local function share(key, member, value, found, is_read, waits, reads)
    local set = key .. SET
    if waits > 0 or (is_read and not reads) or (not is_read and found ~= '') then
      return false
    end
    local kept, wrong = '+inf', nil
    wrong = wrong_of(try('ZSCORE', set, member)) or wrong_of(try('ZREM', set, member))
    if not wrong and is_read then
      local ending
      ending, wrong = shares.count_by_this_clock(key, found, longest())
      -- Shares by the clock of another server have no time here; places have.
      kept = ending == shares.by_this_clock() and text(now) or '(0'
      wrong = wrong or shares.keep(key)
    end
    -- What has ended, and for the first share what is left of earlier ones.
    wrong = wrong or wrong_of(try('ZREMRANGEBYSCORE', set, '(-' .. text(now), kept))
      or wrong_of(try('ZADD', set, shares.ends, member)) or shares.keep(set)
    local set_now = not wrong and (is_read and { ok = 'OK' }
      or try('SET', key, READERS .. ' ' .. value .. shares.by_this_clock(), 'PX', lease, 'NX'))
    if not set_now or set_now.err then
      try('ZREM', set, member)
    end
    return wrong or set_now
  end

  -- Has readers that come later wait for this writer; whether they do.
  local function wait(key, owner)
    local set, place = key .. SET, WAITER .. sub(owner, 1, 16)
    if wrong_of(try('ZADD', set, '-' .. shares.ends, place)) then
      return false
    elseif shares.keep(set) then
      -- For ever, else.
      try('ZREM', set, place)
      return false
    end
    return true
  end

  made = { ends = ends, bounded = bounded, is_over = is_over, leave = leave, share = share, wait = wait }
  return made
end
