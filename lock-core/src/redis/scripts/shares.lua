-- What the scripts do alike for a lock that readers hold. It is before the parts of `exchange`, before `renew.lua`
-- and before `holders.lua`.
--
-- The value of such a lock ends with whose clock the times of its shares are by: ` readers:` and the server, if all are by
-- that one's; else ` readers~`, the server, a dot and a time (us): what was granted or renewed since then is by its clock,
-- and what was before is by those of others. So a server never compares its clock with the time of another. A share of
-- the others is renewed here within a longest lease, or it has ended: from then on all that count are by this clock
-- again, and those that have ended can be removed.
--
-- What is not allowed or cannot be done is given as an error, and nothing is raised: the entries of others in the call
-- are none of its.

local READERS = 'ffffffffffffffffffffffffffffffff'
-- What follows the owner of a share; how a lock's set of readers is called.
local READER, SET = '&', ':readers'

-- What is wrong, if this answer says so.
local function wrong_of(answer)
  return type(answer) == 'table' and answer.err and answer or nil
end

-- At this time (us), for a lease (ms).
local function shares_of(now, lease)
  local try, sub, server = redis.pcall, string.sub, nil

  -- 16 digits of what this server calls itself, or nothing where it does not say.
  local function this_server()
    if not server then
      local info = try('INFO', 'server')
      local _, last = nil, nil
      if type(info) == 'string' then
        _, last = string.find(info, '\nrun_id:', 1, true)
      end
      server = last and sub(string.match(info, '^%x+', last + 1) or '', 1, 16) or ''
    end
    return server
  end

  -- How the value of a lock ends whose shares are all by this clock.
  local function by_this_clock()
    return ' readers:' .. this_server()
  end

  local function is_by_this_clock(value)
    return sub(value, -25) == by_this_clock()
  end

  -- From now on a share of the lock of this value is by this clock: how the value ends then, and what is wrong. `longest`
  -- is the longest lease (us), where it is known.
  local function count_by_this_clock(key, value, longest)
    local ends = by_this_clock()
    if sub(value, -25) == ends then
      return ends
    end
    local head, before, since = string.match(value, '^(.*) readers~(%x+)%.(%d+)$')
    since = tonumber(since)
    if before == this_server() and since <= now then
      if not longest or since + longest >= now then
        return sub(value, #head + 1)
      end
    else
      head = string.match(value, '^(.*) readers') or value
      ends = string.format(' readers~%s.%.0f', this_server(), now)
    end
    return ends, wrong_of(try('SET', key, head .. ends, 'KEEPTTL'))
  end

  -- Makes it last a lease from now at least.
  local function keep(key)
    local left = try('PTTL', key)
    if type(left) == 'number' then
      left = left < lease + 0 and try('PEXPIRE', key, lease)
    end
    return wrong_of(left)
  end

  return {
    by_this_clock = by_this_clock,
    is_by_this_clock = is_by_this_clock,
    count_by_this_clock = count_by_this_clock,
    keep = keep,
    -- When a share ends that is granted or renewed now.
    ends = string.format('%.0f', now + lease * 1000),
  }
end
