//! Locks in a Redis server or cluster: leased keys, for many locks at high rates.
//!
//! One key per lock holds its owner, its token and its [instance](RedisBuilder::instance), and lives for one lease
//! unless it is renewed.
//! Every step is a script, so that each is decided by the server alone; what many tasks ask for
//! travels in few calls. A backend has a thread of its own and two connections per node, one for
//! commands and one for what it waits for, whatever is held or awaited.
//!
//! ```no_run
//! use lock_core::{LockError, LockProvider, redis::RedisBackend};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
//! let backend = RedisBackend::connect("redis://127.0.0.1:6379").await?;
//! let locks = LockProvider::new(backend);
//! let guard = locks.lock("order:process:42")?.acquire(std::time::Duration::from_secs(5)).await?;
//! # guard.release().await }
//! ```
//!
//! # What is promised
//!
//! - **Leases.** A lock that is not renewed ends with its [lease](RedisBuilder::lease): that of a
//!   crashed holder after at most 30 s, unless chosen otherwise. Everything a process holds is
//!   renewed together, three times per lease; a renewal that fails is tried again until the lease
//!   ends. Our side of it ends earlier by a margin (1 % and 50 ms), counted from before the request
//!   was sent.
//! - **No false answers.** An acquire whose answer is lost is asked for again as another owner, by a
//!   call that first gives back what the former may have been granted: a lost reply, or a request that
//!   arrives too late, neither looks like contention nor leaves a lock behind. Owners are random, from
//!   the operating system, and new for each connection: processes of one seed, forks and copies of a
//!   virtual machine are never one owner.
//! - **Waiting** is by a message of the release. A process is subscribed to the names that it waits
//!   for, and the thread that learns of a release tries immediately for the waiters; what ends without
//!   a release is asked for when it ends. A client that is refused leaves a mark at the lock, and a lock
//!   without a mark is released without a message.
//! - **Readers.** A lock that is [shared](crate::LockMode::Shared) has a set of readers beside its key (`..:readers`), with
//!   when the share of each ends: one that crashed ends with its own lease, while others renew theirs. A writer that
//!   waits while there are readers has a place in that set, and no share is granted until it was granted the lock, waits no
//!   longer, or has not asked for a lease. Behind another writer, and while no reader waits, it has none: a reader
//!   that asks in the moment of the release can come first. To earlier versions of this library a lock of readers is one
//!   that is held, which their writers wait for. Writers alone run no other command than before.
//! - **A lock that is [kept](crate::LockPolicy::with_at_least)** is granted for that time where it is longer than
//!   the lease. Its release leaves a key without an owner, which ends by itself, so that nothing but the server is
//!   needed to keep it closed.
//! - **Tokens** are the server's time in microseconds, and greater than all earlier ones of the name
//!   also when that clock goes back. A server that takes over from another goes on 10 minutes ahead of
//!   its clock, and at least a lease (10 minutes of a longer one) after the last token that it knows:
//!   tokens grow also where it lacks the last ones, unless its clock is behind by more than that, or a second
//!   server takes over within these 10 minutes that lacks all that the first has granted since it did.
//!
//! # What is not
//!
//! A server that forgets (restarted, failed over to a replica that lagged, its clock put forward)
//! forgets locks that are held. Then no lock is granted for one lease, the
//! [quarantine](RedisBuilder::quarantine); the holders learn it with their next renewal. Until then
//! [tokens](crate::FencingToken) protect what the locks are for. Keys that are deleted are
//! noticed with the next renewal, and protected by nothing else.
//!
//! A master that becomes a replica renews nothing. Where the address leads to the new master within the lease,
//! what is held is renewed there, if it has a copy; else it is lost at the end of its lease, as
//! [`ReadOnly`](crate::LossReason::ReadOnly). Meanwhile no lock is granted.
//!
//! # Connection strings
//!
//! | form | |
//! |---|---|
//! | URL | `redis://user:password@host:6379/0`, `rediss://` for TLS, `valkey://`, `valkeys://`, `unix:///path` |
//! | as .NET writes it | `host:6379,user=..,password=..,ssl=true,defaultDatabase=1`; several `host:port` are nodes of one cluster |
//! | Sentinels | `redis+sentinel://user:password@host:26379,host:26379/mymaster/0`, `rediss+sentinel://`, or `host:26379,host:26379,serviceName=mymaster` |
//!
//! Special characters of a password in a URL are percent-encoded. Both forms take these options, in a
//! URL after a `?`: `user`, `password`, `db`, `connectTimeout` (in ms), `ssl`, `protocol` (3), `sslHost`,
//! `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile`. Options of other clients that change nothing for a
//! lock, such as their timeouts, retries and pools, are ignored, and one line of the log, at `info`, names
//! them. What cannot be kept is an error that says what to do: `ssl_cert_reqs=none`, `#insecure`,
//! `keyPrefix`, a proxy. No error shows a value.
//!
//! # TLS
//!
//! Certificates are always verified. A private authority is named by `ssl_ca_certs=FILE`,
//! [`ca_file`](RedisBuilder::ca_file), or the variables `SSL_CERT_FILE` and `SSL_CERT_DIR`; each counts in
//! place of the roots of the machine. A certificate of the client is `ssl_certfile` with `ssl_keyfile`, or
//! [`client_certificate`](RedisBuilder::client_certificate). Files are read at each connect.
//!
//! The certificate of a server is for its host, or for what `sslHost` says. A cluster can name its nodes by
//! addresses: a node whose certificate is not for its address has to have one for a name in the
//! connection string. Each failure of a handshake has a text of its own.
//!
//! # Forked children
//!
//! A child that goes on without `exec` has copies of the sockets, and none of the thread that uses them. Its
//! copies of guards release nothing, its acquires are not answered, and a guard that was copied is valid
//! until the lease that was known at the fork ends: leave them alone, and connect anew in the child. Locks
//! do not belong to a connection: after a crash of the parent they end with their leases, child or not.
//!
//! # Several addresses
//!
//! `node-1:7000,node-2:7000` are nodes of one cluster. Each address that answers has to say that it is,
//! when a process connects: otherwise a process that starts while the first is silent would lock
//! elsewhere than the others. A single server has one address, also where it has several names.
//!
//! That address has to lead to one master. A name with two, a balancer of connections or a service of Kubernetes
//! over independent servers would have both grant a lock. A process makes some more connections when it connects,
//! and when it comes to another server than before, and compares what the servers call themselves: two masters are
//! [`Misconfigured`](crate::LockErrorKind::Misconfigured), with both. Where they are noticed later, no lock is
//! granted and health is down until one is left; what is held goes on at its server. Replicas behind the address
//! grant nothing and are no fault. Not noticed are two masters behind a balancer that leads each *machine* to one
//! of them. Stop a server before its address is moved to another: processes that are connected to it leave it only
//! with their next connection.
//!
//! A master and its replicas are refused as a list: name their [Sentinels](#sentinels), or give the address
//! of the master, by a name that follows it in a fail-over. The name is looked up at each connect; the
//! backend connects anew when its server is gone or has become a replica, and the
//! [quarantine](RedisBuilder::quarantine) of the new master begins.
//!
//! # Sentinels
//!
//! ```no_run
//! # use lock_core::{LockError, redis::RedisBackend};
//! # async fn f() -> Result<(), LockError> {
//! let sentinels = "redis+sentinel://app:secret@s1:26379,s2:26379,s3:26379/mymaster/0";
//! let backend = RedisBackend::connect(sentinels).await?;
//! # Ok(()) }
//! ```
//!
//! User, password, database and options are those of the server. The Sentinels have a login of their own,
//! if any: `sentinelUser` and `sentinelPassword` (`sentinel_username` and `sentinel_password` are the same),
//! or [`sentinel_credentials`](RedisBuilder::sentinel_credentials); the user needs `+sentinel|master
//! +sentinel|get-master-addr-by-name`. With TLS both are spoken to in TLS, and with the same certificates.
//! Also taken: `redis-sentinel://`, `valkey+sentinel://`, `redis://host:26379`, and for the master's name
//! `sentinelMasterId`, `master_name` and the like.
//!
//! - **Which server.** All Sentinels are asked together, at each connect and then once a second (of a lease
//!   under 6 s, six times a lease); behind a name with several addresses each, at each connect. What the newest configuration names counts, if that server says itself that it is a
//!   master. One Sentinel that answers is enough. Name all of them, the same in each process.
//! - **What a fail-over costs.** Replication is asynchronous: a new master can lack locks that are held. It
//!   grants none for one lease, the [quarantine](RedisBuilder::quarantine). Each holder renews at the new
//!   master within a second or a heartbeat: what that has stays held, what it lacks is lost, and its holder
//!   is notified before another is granted it. With [`replicas`](RedisBuilder::replicas) as many as there are, none is lacking.
//! - **The former master** can go on for some 10 s after a fail-over that was ordered, or that it slept through.
//!   Nothing is held by two because of that: a lease counts from no later than a time when no Sentinel named
//!   another master, and every process leaves the former one when one does.
//! - **Without Sentinels.** When none answers, locks go on with the server that there is; a process that
//!   starts then is [`Unavailable`](crate::LockErrorKind::Unavailable).
//! - **What is not promised.** A network that keeps some processes *together with the former master* away from
//!   the Sentinels that elected the new one, also where a minority of them stays on their side, or a balancer that
//!   leads each process to one of several Sentinels: both sides then grant, also with `replicas` what was held
//!   before. Tokens tell them apart. Against it, set `min-replicas-to-write 1` on the servers, and
//!   `min-replicas-max-lag` to no more than `down-after-milliseconds`: a master without replicas then
//!   renews nothing (from Redis 7.0 on). Where that is not set, the log says so once.
//!
//! # Rights
//!
//! A user needs no more than this, which no other command and no other key goes with:
//!
//! ```text
//! ACL SETUSER app ~lock:* &lock:* +del +evalsha +getrange +info +pexpire +pttl +script|load +set +time
//!     +zadd +zrange +zrem +zremrangebyscore +zscore +publish +subscribe +unsubscribe
//! ```
//!
//! and on each node of a cluster:
//!
//! ```text
//! ACL SETUSER app ~lock:* &lock:* +del +evalsha +getrange +info +pexpire +pttl +script|load +set +time
//!     +zadd +zrange +zrem +zremrangebyscore +zscore +spublish +ssubscribe +sunsubscribe +cluster|keyslot +cluster|myid +cluster|slots
//! ```
//!
//! The commands with `z` are for [shared](crate::LockMode::Shared) locks alone. `+select` as well for a database other than 0, `+wait` for [replicas](RedisBuilder::replicas), and `+scan +zrange`
//! for [`LockProvider::list`](crate::LockProvider::list), which reads the keys of all that is held. A refusal
//! says which right is missing, and the line that gives it. Keys are hashes of namespace and name: no pattern
//! of keys keeps the users of two namespaces apart, which takes two servers.
//!
//! # Passwords that change
//!
//! [`RedisBuilder::credentials`] is asked for user and password whenever a connection is made, for
//! commands and for messages, to each node. A new password ends no connection; one that is ended, or
//! lost, comes back with the new one, and renews what is held. Where a server refuses a password, the
//! same one is shown to it again after 1 s, and then after pauses that double up to 10 s, so that no
//! account is locked for it; another one is tried at the next attempt.
//!
//! # Who else can use the server
//!
//! A user of the same server who can write to the keys `lock:*` can do to locks what it likes, and no
//! client can prevent it: delete a key, which ends the lock (the holder notices with its next renewal,
//! and another can be granted it before that); write one, which counts as held until it ends or is
//! deleted; delete the server key `lock:{b..}:server-v1-..`, which forgets a quarantine; or write to it
//! a quarantine of up to 24 h, a token of up to a day ahead, or that there is no quarantine. Give locks a server
//! of their own, or keep other users from these keys and channels by ACL. What is bounded:
//!
//! - A server key with a longer quarantine or a token further ahead is not believed, adopted or
//!   overwritten. Every acquire is then [`Misconfigured`](crate::LockErrorKind::Misconfigured), with the
//!   name of the key, until it is deleted. A server whose clock was put back by more than a day
//!   meets the same. What is no such note at all counts as none.
//! - Of no value more than 128 bytes are read, so that a huge one costs the server nothing.
//! - A key of another type is an error of its own lock alone. One that no client has written, or that has
//!   no end, is contended, and the log names it once a minute.
//! - What a server answers that no script answers costs the connection. A panic costs the connections and
//!   the leases; both are followed by a back-off and new connections.
//!
//! A hostile *server*, or a network that changes what it sends, grants what it likes. It can also fill the
//! memory of its clients, since the driver keeps an answer until it is complete: as much as it sends within
//! the time of one answer (2 s at most). Verify it with TLS (`rediss://`).
//!
//! Locks live in the database (`/2`) of the connection string; channels are shared by all databases
//! of a server, which costs a try too many at worst.

mod about;
mod address;
mod backend;
mod behind;
mod builder;
mod certificates;
mod command;
mod companion;
mod connect;
mod connection_string;
mod gather;
mod key;
mod listing;
mod logins;
mod not_now;
mod opened;
mod options;
mod overheard;
mod protocol;
mod refused;
mod registration;
mod rehearsal;
mod rights;
mod scripts;
mod seeds;
mod sentinel;
mod servers;
mod settings;
mod shared;
mod split;
mod steps;
mod subscriber;
mod thread;
mod tls;
mod topology;
mod value;
mod waiting;
mod watch;

pub use backend::RedisBackend;
pub use builder::RedisBuilder;
#[doc(hidden)]
pub use command::RedisGrant;
#[cfg(all(test, feature = "postgres"))]
pub(crate) use companion::RedisCompanion;
pub use connect::client;
pub(crate) use registration::REGISTRATION;

/// The driver whose types the signatures here have, in the version that they mean.
#[doc(no_inline)]
pub use ::redis;

/// What metrics and health call this backend.
const KIND: &str = "redis";
