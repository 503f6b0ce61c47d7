-- Runs through some of the keys of the server, and gives those that can be of locks. It writes nothing.
--
-- KEYS: none. ARGV: the cursor, the pattern, how many keys to look at, how long the key of a lock is at most, the number of
--       the call.
-- Reply: the number of the call and the time (us), the next cursor, then the keys.
--
-- Others can make keys of any length: what is longer than that of a lock is not sent.

local time = redis.call('TIME')
local reply = { { tonumber(ARGV[5]), time[1] * 1000000 + time[2] } }
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3], 'TYPE', 'string')
local longest, found = tonumber(ARGV[4]), 2
reply[2] = page[1]
for _, key in ipairs(page[2]) do
  if #key <= longest then
    found = found + 1
    reply[found] = key
  end
end
return reply
