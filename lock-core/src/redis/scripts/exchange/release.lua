-- Releases.
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
        if find(wrong.err, 'READONLY', 1, true) then
          return redis.error_reply(wrong.err)
        end
        say(i, wrong.err)
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
