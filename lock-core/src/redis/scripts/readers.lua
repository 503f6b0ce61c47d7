-- Tells which readers hold locks. It writes nothing.
--
-- KEYS: the sets of readers, all of one slot. ARGV: how many readers to give of a set at most, how much of what one is
--       called, then for each set the time (us) after which shares last, as ZRANGE takes it, then the number of the call.
-- Reply: the number of the call and the time (us), then for each set its readers.
--
-- Others can write to these keys: no more of a member is sent than a reader has, and what is no set has none. Any other
-- error is the answer: without it a lock that is held would be missing.

local time = redis.call('TIME')
local reply = { { tonumber(ARGV[#KEYS + 3]), time[1] * 1000000 + time[2] } }
local most, longest = ARGV[1], tonumber(ARGV[2])
for i, key in ipairs(KEYS) do
  local members, found = {}, redis.pcall('ZRANGE', key, ARGV[i + 2], '+inf', 'BYSCORE', 'LIMIT', '0', most)
  if not found.err then
    for n, member in ipairs(found) do
      members[n] = string.sub(member, 1, longest)
    end
  elseif not string.find(found.err, 'WRONGTYPE', 1, true) then
    return redis.error_reply(found.err)
  end
  reply[i + 1] = members
end
return reply
