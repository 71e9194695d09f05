-- What is kept beside a job at `e:<ulid>`: the error on the first line, then the attempts that were
-- followed by another one, newest first, at most 19; see windlass_jobs::attempts.

-- set_error(ulid, err): another error; what is known of earlier attempts stays.
local function set_error(ulid, err)
  local key = P .. 'e:' .. ulid
  local old = call('GET', key)
  local at = old and string.find(old, '\n', 1, true)
  call('SET', key, at and err .. sub(old, at) or err)
end

-- note_attempt(ulid, run, attempt, ended, word, err, says): `run` is the field of the job's hash, `word` how
-- it ended, `err` the error from now on, nil leaves it; `says`: the entry has the error, too.
local function note_attempt(ulid, run, attempt, ended, word, err, says)
  local key = P .. 'e:' .. ulid
  local old = call('GET', key) or ''
  local at = string.find(old, '\n', 1, true)
  local rest = at and sub(old, at) or ''
  err = err or (at and sub(old, 1, at - 1) or old)
  local epoch, started, worker = match(run or '', '^(%d+) %d+ (%d+) (.*)$')
  if epoch then
    local cut, n = 0, 0
    repeat
      cut, n = string.find(rest, '\n', cut + 1, true), n + 1
    until not cut or n == 19
    if cut then rest = sub(rest, 1, cut - 1) end
    rest = '\n' .. table.concat({epoch, attempt, started, ended, word, worker, says and err or ''}, ' ') .. rest
  end
  call('SET', key, err .. rest)
end
