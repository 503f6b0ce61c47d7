//! Symptom, cause, remedy.
//!
//! | symptom | cause | remedy |
//! |---|---|---|
//! | 409 `lock-contended`, errors of kind `Contended` | another holds the lock | expected; wait longer, or do less under the lock. `distributed_lock_hold_duration_seconds` tells who holds for long |
//! | 409 `lock-wait-timeout` | it was held for the whole wait | a hot name: see [`timeouts`](super::timeouts) |
//! | 409 that never ends, nobody works | a holder hangs, or a frozen process holds a file lock | set [`max_hold`](crate::LockPolicy::with_max_hold); find the process (below) |
//! | an acquire waits, alone, until its wait is over | the task holds the lock already | [`nesting`](super::nesting); the watch says so in debug builds |
//! | 503, errors of kind `Unavailable` | the server is down, slow or full; the text and its `source()` say which | nothing runs unlocked meanwhile; requests are tried again within their wait |
//! | 500 `lock-lost`, errors of kind `Lost` | the process was frozen or cut off past its lease, the session was ended, `max_hold` was over | the reason is in the log and in `distributed_lock_lost_total{reason}`; the outcome is unknown, so make the work repeatable and [fence](super::fencing) it |
//! | `Lost` with reason `expired` under load | the machine is short of CPU, or the lease is | watch `distributed_lock_renew_headroom_seconds`; a longer lease, more CPU |
//! | 500 and `Misconfigured` in the log | a template that names no parameter, no provider installed, a setting | the text says which; it is an error of the program, and not of the request |
//! | two instances do the same work | they lock in two places: other server, database, namespace, directory, user, or `LOCK_NAME_SECRET` | compare their first log lines and settings |
//! | the same, and the settings agree | the work goes on after its lock was lost: something was spawned, or blocks | [`fencing`](super::fencing) |
//! | "shares sessions between clients" at start | a pooler in transaction mode | [`deployment`](super::deployment): session mode, or the server itself |
//! | "does not know a startup parameter of the driver" at start | PgBouncer's default | `ignore_startup_parameters = extra_float_digits` |
//! | `Handler<_, _>` is not satisfied, of a handler with `#[distributed_lock]` | it returns `LockError`, which is no response | return `lock_tower::LockRejection`, or an error of your own |
//! | "notification queue" in an error or a warning | an open transaction that LISTENs, in any database of the server, keeps it full | end that transaction; meanwhile locks work, and waiters try a few times a second |
//! | `idle-session timeout`, FATAL, in the server's log at each connect | the connection that checked the session was ended | harmless |
//! | "the role lacks rights" at start | a right was taken from PUBLIC | run the lines that the error shows; [`security`](super::security) |
//! | "did not answer within 5s while .." | a slow link, a frozen server, or a pooler whose clients wait for a connection | the text names the step; of a pooler, raise its size |
//! | "has no connection left for ..", or a limit that is named | the connections of the server, the database, the role or the pooler are all in use | the statement in the error raises that one |
//! | "is being moved" in an error, Redis Cluster | a slot is half moved: `MIGRATING` on one node, `IMPORTING` on another | finish the move, or take it back |
//! | waiters "ask for their locks from time to time" in the log | releases are not heard: no right to subscribe, no room for clients, a small `client-output-buffer-limit pubsub` | locks work, up to a second later; the line says why |
//! | no start beside `DATABASE_URL`, with Redis or files | the database can keep no mark of the provider: a pooler, a standby, a URL that is not understood | a URL of the primary, or `LOCK_MARKER=optional` on all instances |
//! | every acquire is `Misconfigured` and names a Redis key | another program wrote to it, or the server's clock was put back by more than a day | correct the clock, delete the key |
//! | "this server is a standby" at start | the address of a replica | connect to the primary |
//! | "evicts keys when its memory is full" at start | `maxmemory-policy` | `noeviction`, or a server of its own for locks |
//! | "the lock table of the server is full" | more locks than `max_locks_per_transaction * max_connections` | raise the first; hold fewer |
//! | every lock is taken (409) for half a minute after Redis was started, also for the first time | the quarantine: it may have forgotten who holds what | expected; a shorter lease makes it shorter; in tests `quarantine(Duration::ZERO)` |
//! | half a minute of refusals after each deployment | the process ended without [`shutdown`](crate::LockProvider::shutdown) | call it on SIGTERM |
//! | "no file descriptor left" | `ulimit -n` | raise it; one backend for a process is enough |
//! | metrics with the label `other` | more than 1,000 labels: an entity made of user input | put the value into the id |
//!
//! # Outages in the log
//!
//! A line when one begins; then few, with `failures` since the last line and how long it is `lasting`; and one
//! at INFO when it is over, with `lasted`. Each has the `server`. Of guards that are lost together, the first has
//! a line, and the others one with their number: set `lock_core=debug` to see each by its name.
//!
//! # Tests with a paused clock
//!
//! With `start_paused`, tokio's clock moves on while a server's answer is on its way, so that answers come
//! "too late". Use a `MemoryBackend` there; with a real server leave `start_paused` out, or call
//! `tokio::time::resume()`.
//!
//! # Who holds a lock in PostgreSQL
//!
//! Keys are hashes, so that the server does not tell names. Which sessions hold locks, and how many:
//!
//! ```sql
//! SELECT a.pid, a.application_name, a.client_addr, a.state, count(*)
//!   FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
//!  WHERE l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted
//!  GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC
//! ```
//!
//! `SELECT pg_terminate_backend(pid)` frees all of a session's locks; its holders hear it at once and
//! are told that they lost them.
//!
//! # What to alert on
//!
//! - `distributed_lock_lost_total` grows: work was stopped half-way.
//! - `distributed_lock_acquire_duration_seconds{outcome="unavailable"}` counts: requests are refused.
//! - `distributed_lock_renew_headroom_seconds` comes near zero: losses are next.
//! - `distributed_lock_release_failures_total` grows: others wait for a lease to end.
//!
//! Contention (`outcome="contended"`) is not an error; a jump of it is worth a look.
