-- Tells who holds locks; all keys are of one slot. It writes nothing.
--
-- KEYS: the locks. ARGV: the number of the call.
-- Reply: the number of the call and the time (us), then for each lock its value, or 0 where there is none.

local time = redis.call('TIME')
local reply = { { tonumber(ARGV[1]), time[1] * 1000000 + time[2] } }
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
  end
  reply[i + 1] = value
end
return reply
