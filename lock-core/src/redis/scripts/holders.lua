-- Tells who holds locks; all keys are of one slot. It writes nothing.
--
-- KEYS: the locks. ARGV: the number of the call.
-- Reply: the number of the call and the time (us), then for each lock its value, or 0 where there is none. Of one that
--        stays closed after its release the value and for how long (ms); of one that readers hold the value, and the reader
--        whose share lasts longest as its set has it.

-- As in `exchange`.
local NO_OWNER = '00000000000000000000000000000000'

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local reply = { { tonumber(ARGV[1]), now } }
for i, key in ipairs(KEYS) do
  -- No more is read than a lock has: others can write to the key.
  local value = redis.pcall('GETRANGE', key, '0', '127')
  if type(value) == 'table' then
    if not string.find(value.err, 'WRONGTYPE', 1, true) then
      return redis.error_reply(value.err)
    end
    -- Held by what no script of ours wrote.
    value = ''
  elseif value == '' and redis.call('PTTL', key) == -2 then
    value = 0
  elseif string.sub(value, 1, 32) == NO_OWNER then
    value = { value, math.max(redis.call('PTTL', key), 0) }
  elseif string.sub(value, 1, 32) == READERS then
    local last = redis.pcall('ZRANGE', key .. SET, '-1', '-1', 'WITHSCORES')
    if last[1] then
      last[1] = string.sub(last[1], 1, 127)
      -- Without one that has not ended it is free, if that is by this clock.
      local ends = tonumber(last[2])
      local lasts = ends > now or ends > 0 and not shares_of(now, 0).is_by_this_clock(value)
      value = lasts and { value, last[1] } or 0
    end
  end
  reply[i + 1] = value
end
return reply
