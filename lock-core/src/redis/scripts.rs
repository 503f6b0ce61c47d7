//! The scripts, and how they are called.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::LazyLock;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value, cmd};
use futures_util::FutureExt;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::rights::says_not_permitted;

/// A script that the server knows by its hash.
pub(super) struct Lua {
    code: &'static str,
    hash: LazyLock<String>,
}

pub(super) static EXCHANGE: Lua = Lua {
    code: include_str!("scripts/exchange.lua"),
    hash: LazyLock::new(|| {
        Script::new(include_str!("scripts/exchange.lua"))
            .get_hash()
            .into()
    }),
};

pub(super) static RENEW: Lua = Lua {
    code: include_str!("scripts/renew.lua"),
    hash: LazyLock::new(|| {
        Script::new(include_str!("scripts/renew.lua"))
            .get_hash()
            .into()
    }),
};

/// The latest time (microseconds) that the scripts can count to: doubles are exact up to there.
const LATEST: i64 = 1 << 53;

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
            Self::Refused(error) => {
                has_moved(error)
                    || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
                    || error.to_string().contains("READONLY")
            }
            Self::Unknown(_) | Self::Nonsense => false,
        }
    }

    /// Whether the rights of the user are not enough.
    pub(super) fn is_not_permitted(&self) -> bool {
        match self {
            Self::Refused(error) => {
                error.code() == Some("NOPERM") || says_not_permitted(&error.to_string())
            }
            Self::Unknown(_) | Self::Nonsense => false,
        }
    }
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
    /// A call with so many keys; keys and arguments follow.
    pub(super) fn call(&self, keys: usize) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(self.hash.as_str()).arg(keys);
        call
    }

    /// Teaches the server.
    pub(super) fn load(&self) -> Cmd {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(self.code);
        load
    }

    /// Calls; a server that does not know the script is taught it.
    pub(super) async fn invoke(
        &self,
        connection: &mut MultiplexedConnection,
        call: &Cmd,
        within: Duration,
    ) -> Result<Vec<Value>, Failure> {
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
            // Each begins with the time.
            Ok(Value::Array(values)) if matches!(values[..], [Value::Int(1..=LATEST), ..]) => {
                Ok(values)
            }
            Ok(_) => Err(Failure::Nonsense),
            Err(error) => Err(Failure::Refused(error)),
        }
    }
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

    #[tokio::test]
    async fn an_answer_that_has_not_come_is_not_waited_for_any_longer() {
        let late = in_time(Duration::from_millis(1), std::future::pending::<()>());
        assert!(late.await.is_err());
    }
}
