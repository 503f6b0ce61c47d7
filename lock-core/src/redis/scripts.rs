//! The scripts, and how they are called.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value, cmd};
use futures_util::FutureExt;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::rights::Asked;
use crate::LockError;

/// A script that the server knows by its hash.
pub(super) struct Lua {
    code: &'static str,
    hash: OnceLock<String>,
}

impl Lua {
    const fn new(code: &'static str) -> Self {
        Self {
            code,
            hash: OnceLock::new(),
        }
    }

    fn hash(&self) -> &str {
        self.hash
            .get_or_init(|| Script::new(self.code).get_hash().into())
    }
}

pub(super) static EXCHANGE: Lua = Lua::new(concat!(
    include_str!("scripts/shares.lua"),
    include_str!("scripts/exchange/request.lua"),
    include_str!("scripts/exchange/readers.lua"),
    include_str!("scripts/exchange/release.lua"),
    include_str!("scripts/exchange/note.lua"),
    include_str!("scripts/exchange/acquire.lua"),
));

pub(super) static RENEW: Lua = Lua::new(concat!(
    include_str!("scripts/shares.lua"),
    include_str!("scripts/renew.lua"),
));

pub(super) static TOKEN: Lua = Lua::new(include_str!("scripts/token.lua"));

pub(super) static HOLDERS: Lua = Lua::new(concat!(
    include_str!("scripts/shares.lua"),
    include_str!("scripts/holders.lua"),
));

pub(super) static KEYS: Lua = Lua::new(include_str!("scripts/keys.lua"));

pub(super) static READERS: Lua = Lua::new(include_str!("scripts/readers.lua"));

/// The latest time (microseconds) that the scripts can count to: doubles are exact up to there.
const LATEST: i64 = 1 << 53;

/// How long keys and arguments mostly are at most.
const KEY: usize = 64;
const ARGUMENT: usize = 36;

/// Numbers of calls.
static CALLS: AtomicI64 = AtomicI64::new(1);

/// Why a call has no answer.
pub(super) enum Failure {
    /// The server says that it did not do it.
    Refused(RedisError),
    /// It may have been done, or be done later.
    Unknown(Option<RedisError>),
    /// No script of ours answers that: it may have been done, and what else comes over this connection
    /// means nothing.
    Nonsense,
}

impl Failure {
    /// Whether the keys are elsewhere in the cluster, or another server is the master now.
    pub(super) fn is_elsewhere(&self) -> bool {
        match self {
            Self::Refused(error) => has_moved(error) || self.is_moving() || self.is_read_only(),
            Self::Unknown(_) | Self::Nonsense => false,
        }
    }

    /// Whether the server only reads: it is a replica now.
    pub(super) fn is_read_only(&self) -> bool {
        match self {
            Self::Refused(error) => {
                error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
                    || error.to_string().contains("READONLY")
            }
            Self::Unknown(_) | Self::Nonsense => false,
        }
    }

    /// Where the keys are, as a node says that they are not at: host and port.
    pub(super) fn where_moved(&self) -> Option<(String, u16)> {
        match self {
            Self::Refused(error) if !self.is_moving() => {
                let (address, _) = error.redirect_node()?;
                let (host, port) = address.rsplit_once(':')?;
                Some((host.to_owned(), port.parse().ok()?))
            }
            _ => None,
        }
    }

    /// Whether a slot of the cluster is on its way to another node, with some of its keys.
    pub(super) fn is_moving(&self) -> bool {
        use ServerErrorKind::{Ask, TryAgain};
        match self {
            Self::Refused(error) => {
                matches!(error.kind(), ErrorKind::Server(Ask | TryAgain))
                    || says_moving(&error.to_string())
            }
            Self::Unknown(_) | Self::Nonsense => false,
        }
    }

    /// What the answer of the server begins with; empty where there is none.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Refused(error) => error.code().unwrap_or_default(),
            Self::Unknown(_) | Self::Nonsense => "",
        }
    }

    /// Why the server did not do it, if it says that rights or the command are lacking.
    pub(super) fn lacking(&self, asked: Asked<'_>) -> Option<LockError> {
        match self {
            Self::Refused(error) if error.code() == Some("NOPERM") => {
                let said = error.to_string();
                Some(asked.not_permitted(&said, &*said))
            }
            Self::Refused(error) => asked.lacking(&error.to_string()),
            Self::Unknown(_) | Self::Nonsense => None,
        }
    }
}

/// Whether this is what a script says of a key that has moved to another node already, while others of its slot have not.
pub(super) fn says_moving(error: &str) -> bool {
    error.contains("non local key")
}

/// Whether the keys are on another node of the cluster, or on their way to it.
pub(super) fn has_moved(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, Moved, TryAgain};
    matches!(error.kind(), ErrorKind::Server(Moved | Ask | TryAgain))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) | Self::Unknown(Some(error)) => error.fmt(f),
            Self::Unknown(None) => f.write_str("no answer in time"),
            Self::Nonsense => f.write_str("an answer that means nothing"),
        }
    }
}

impl Lua {
    /// A call with so many keys, which follow, and then so many arguments.
    pub(super) fn call(&self, keys: usize, arguments: usize) -> Cmd {
        // With the command, the hash, the number of keys and that of the call.
        let (words, bytes) = (keys + arguments + 4, keys * KEY + arguments * ARGUMENT + 64);
        let mut call = Cmd::with_capacity(words, bytes);
        call.arg("EVALSHA").arg(self.hash()).arg(keys);
        call
    }

    /// Teaches the server.
    pub(super) fn load(&self) -> Cmd {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(self.code);
        load
    }

    /// Calls; a server that does not know the script is taught it. Gives the time of the server and what
    /// follows it.
    ///
    /// Each call has a number, which the script repeats: in a stream to which something was added, the
    /// answer to another call is not taken for the answer to this one.
    pub(super) async fn invoke(
        &self,
        connection: &mut MultiplexedConnection,
        mut call: Cmd,
        within: Duration,
    ) -> Result<Vec<Value>, Failure> {
        let number = CALLS.fetch_add(1, Ordering::Relaxed);
        call.arg(number);
        let call = &call;
        let invoke = async {
            let answer = connection.send_packed_command(call).await?;
            if !is_no_script(&answer) {
                return Ok(answer);
            }
            connection
                .send_packed_command(&self.load())
                .await?
                .extract_error()?;
            connection.send_packed_command(call).await
        };
        let mut invoke = pin!(invoke);
        let answer = match in_time(within, invoke.as_mut()).await {
            // Errors of the server come as values, but for that of the loading.
            Ok(Err(error))
                if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) =>
            {
                return Err(Failure::Refused(error));
            }
            Ok(Err(error)) if error.kind() == ErrorKind::Parse => return Err(Failure::Nonsense),
            Ok(Err(error)) => return Err(Failure::Unknown(Some(error))),
            Err(Late) => return Err(Failure::Unknown(None)),
            Ok(Ok(answer)) => answer,
        };
        match answer.extract_error() {
            Ok(answer) => answer_to(number, answer).ok_or(Failure::Nonsense),
            Err(error) => Err(Failure::Refused(error)),
        }
    }

    /// The same for a call whose answer has one of these numbers of values, the time among them.
    pub(super) async fn invoke_for<const N: usize>(
        &self,
        mut connection: MultiplexedConnection,
        call: Cmd,
        within: Duration,
        whole: [usize; N],
    ) -> Result<Vec<Value>, Failure> {
        let values = self.invoke(&mut connection, call, within).await?;
        match whole.contains(&values.len()) {
            true => Ok(values),
            false => Err(Failure::Nonsense),
        }
    }
}

/// The time and what follows it, if this is the answer to the call of this number.
fn answer_to(number: i64, answer: Value) -> Option<Vec<Value>> {
    let Value::Array(mut values) = answer else {
        return None;
    };
    let first = values.first_mut()?;
    let time = match first {
        Value::Array(head) => match head[..] {
            [Value::Int(of), Value::Int(time @ 1..=LATEST)] if of == number => time,
            _ => return None,
        },
        _ => return None,
    };
    *first = Value::Int(time);
    Some(values)
}

struct Late;

/// Waits for an answer. One that is there already when the time is over counts: a thread that did not
/// run for so long has not looked.
async fn in_time<F: Future + Unpin>(within: Duration, mut answer: F) -> Result<F::Output, Late> {
    if let Ok(answer) = timeout(within, &mut answer).await {
        return Ok(answer);
    }
    // Once for the runtime to look at the socket, once for the driver to read it.
    for _ in 0..2 {
        yield_now().await;
    }
    (&mut answer).now_or_never().ok_or(Late)
}

fn is_no_script(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use tokio::io::AsyncReadExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_came_while_the_thread_did_not_run_is_read() {
        let within = Duration::from_millis(50);
        let (mut server, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut ours = tokio::net::UnixStream::from_std(ours).unwrap();
        let (reply, answer) = oneshot::channel();
        // As the driver has it: one task reads, another waits.
        tokio::spawn(async move {
            let mut answer = [0; 4];
            let read = ours.read_exact(&mut answer).await;
            let _ = reply.send(read.map(|_| answer));
        });
        yield_now().await;
        let stopped = async {
            server.write_all(b"+OK\r").unwrap();
            std::thread::sleep(2 * within);
        };
        let (answer, ()) = tokio::join!(in_time(within, answer), stopped);
        assert!(answer.is_ok_and(|answer| answer.unwrap().unwrap() == *b"+OK\r"));
    }

    #[test]
    fn the_answer_to_another_call_is_none() {
        let answer = |number, time| {
            let head = Value::Array(vec![Value::Int(number), Value::Int(time)]);
            Value::Array(vec![head, Value::Int(0)])
        };
        assert_eq!(
            answer_to(7, answer(7, 5)),
            Some(vec![Value::Int(5), Value::Int(0)])
        );
        for wrong in [
            answer(6, 5),
            answer(7, 0),
            answer(7, LATEST + 1),
            Value::Array(vec![Value::Int(7), Value::Int(5)]),
            Value::Array(Vec::new()),
            Value::Int(7),
        ] {
            assert_eq!(answer_to(7, wrong), None);
        }
    }

    #[tokio::test]
    async fn an_answer_that_has_not_come_is_not_waited_for_any_longer() {
        let late = in_time(Duration::from_millis(1), std::future::pending::<()>());
        assert!(late.await.is_err());
    }
}
