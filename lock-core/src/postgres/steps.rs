//! The steps of opening a session. Each has a bound of its own: over a slow link all of them together
//! take long, and an error names the one that took too long.

use std::future::Future;
use std::time::Duration;

use tokio::time::timeout;

use crate::LockError;

/// How long one step may take: an exchange with the server, or a login, which is some of them.
pub(super) const WITHIN: Duration = Duration::from_secs(5);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    LogIn,
    /// What the server is, and the rights of the role.
    Look,
    /// The second connection, which is the session.
    LogInAgain,
    /// The first statement of the session, for which a pooler looks for a connection.
    Listen,
    CheckNotifications,
    CheckReset,
    SetUp,
    CheckLocks,
    Mark,
    Prove,
}

impl Step {
    /// What the process did then.
    fn name(self) -> &'static str {
        match self {
            Self::LogIn => "while the process logged in",
            Self::Look => "when it was asked what it is and what the role may do",
            Self::LogInAgain => {
                "while the process logged in a second time, as it does for the moments in which it \
                 connects"
            }
            Self::Listen => "to the first statement of the second connection",
            Self::CheckNotifications => "when a notification was sent",
            Self::CheckReset => "when a session was given back and another one was asked for",
            Self::SetUp => "when the session was set up",
            Self::CheckLocks => "when locks were tried",
            Self::Mark => "when the mark of the provider was taken or looked for",
            Self::Prove => "to the last statement of the setup",
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::LogIn => "check host, port and network, and, behind a pooler, its log",
            // A pooler looks for a session when a client comes, or when its first statement does.
            Self::Look | Self::LogInAgain | Self::Listen | Self::CheckReset => {
                "a pooler lets it wait that has no session free for this role and database, of which a \
                 process needs two for the moments in which it connects: raise `default_pool_size` (or \
                 `pool_size`, `max_db_connections`, `max_user_connections`) in pgbouncer.ini, or the \
                 CONNECTION LIMIT of the role or the database on the server; without one check the load \
                 of the server, and the network"
            }
            _ => "check the load of the server, and the network",
        }
    }
}

/// Runs a step within its bound.
///
/// # Errors
///
/// Those of the step; [`Unavailable`](crate::LockErrorKind::Unavailable), with its name and the bound,
/// when it took too long.
///
/// # Cancel safety
///
/// As the step.
pub(super) async fn within<T>(
    step: Step,
    run: impl Future<Output = Result<T, LockError>>,
) -> Result<T, LockError> {
    timeout(WITHIN, run).await.unwrap_or_else(|_| {
        Err(LockError::unavailable(format!(
            "the server, or a pooler in front of it, did not answer within {WITHIN:?} {}; {}",
            step.name(),
            step.advice()
        )))
    })
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_that_takes_too_long_is_named_with_its_bound() {
        let late = within(Step::SetUp, pending::<Result<(), _>>()).await;
        let error = late.unwrap_err();
        assert!(error.is_unavailable());
        let said = error.to_string();
        assert!(
            said.contains("within 5s when the session was set up"),
            "{said}"
        );
    }
}
