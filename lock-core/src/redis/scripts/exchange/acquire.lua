-- Acquires.
if left <= 0 then
  reply[3] = token
end
-- From here on nothing is raised: the locks that this call has granted before would be held, and known to no caller.
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
  local is_waiting = kind == WAITER or kind == WAITING_READER
  if kind == WAITING_READER then
    kind, owner = READER, sub(owner, 1, OWNER) .. READER .. sub(owner, PREFIX + 1)
  end
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
  local found, held_by, mark, held, rest, is_read, waits, reads, unread
  if not set then
    found = try('GETRANGE', key, '0', LOCK_END)
    if type(found) == 'string' and #found < TOO_LONG then
      held_by, mark, held, rest = match(found, '^(%x+)([ !])(%d+)(.*)$')
    end
    is_read = held_by == READERS
    if type(found) == 'string' and (is_read or kind == READER) then
      waits, reads, unread = of_readers().ends(key .. SET)
      if kind == READER and unread then
        found = unread
      elseif kind == READER and may then
        waits = made.bounded(key .. SET, waits)
        set = made.share(key, owner, sub(value, 1, 31) .. ' ' .. text(token - now), found, is_read, waits, reads)
      elseif may and made.is_over(found, reads) then
        try('DEL', key)
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
      local left_of = try('PTTL', key)
      if type(left_of) == 'table' then
        say(i, left_of.err)
      elseif left_of == -2 then
        -- Free, and not wanted any more, or left to the writer that waits.
        say(i, waits and waits > 0 and -COMING or -1)
      elseif left_of >= 0 and held and #held_by == OWNER and tonumber(held) <= furthest
        and (rest == '' or find(rest, '^ [ -~]+$'))
      then
        local is_shared, again_in = find(rest, '^ 0%d'), max(left_of, 1)
        local is_news = is_waiting and kind == READER and not is_read and not is_shared and rest ~= ''
        if is_news then
          rest = ' 0' .. sub(rest, 2)
        end
        if is_waiting and mark == ' ' or is_news then
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
          if unread and find(unread.err, 'non local key', 1, true) then
            -- Its set has moved to another node already, and the lock goes there.
            again_in = math.min(again_in, COMING)
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
