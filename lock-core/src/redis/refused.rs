//! Why there is no connection to a server, each cause in a sentence that says what to do.

use std::error::Error;

use ::redis::{ConnectionInfo, ErrorKind, RedisError, ServerErrorKind};

use super::tls::TlsTrouble;
use crate::LockError;

/// What a server is that does not know `HELLO`.
const NO_HELLO: &str = "does not speak RESP3: it is older than 6.0, or it does not know `HELLO`";

/// Nor has a Sentinel databases.
const NO_SELECT: &str = "does not have the command `SELECT`, so that there is no database but 0: is it a \
                         Sentinel, or is the command renamed? Name no database";

const REFUSED_USER: &str =
    "refused the user or the password; correct them in the connection string";

const WANTS_PASSWORD: &str =
    "wants a password; give one: redis://:PASSWORD@HOST or HOST:PORT,password=PASSWORD";

/// Whether a server does not let in this user with this password. By our words: those of the server are
/// not kept where the password may be among them.
pub(super) fn is_login_refused(error: &LockError) -> bool {
    let said = error.to_string();
    error.is_misconfigured() && (said.contains(REFUSED_USER) || said.contains(WANTS_PASSWORD))
}

/// Why there is no connection.
pub(super) fn refused(info: &ConnectionInfo, error: RedisError) -> LockError {
    let at = |what: &str| format!("the Redis server at {} {what}", info.addr());
    let code = error.code().unwrap_or_default();
    if let Some(trouble) = TlsTrouble::of(&error) {
        return LockError::misconfigured(at(trouble.sentence()))
            .with_source(without_password(info, error));
    }
    // Its reason is often lost with the connection.
    if has_hung_up(&error) {
        return LockError::unavailable(at(
            "hangs up; does it want TLS, or has it as many clients as its `maxclients` allows?",
        ))
        .with_source(without_password(info, error));
    }
    let said = error.detail().unwrap_or_default();
    let wrong = match error.kind() {
        _ if info.redis_settings().password().is_none()
            && (code == "NOAUTH" || error.to_string().contains("NOAUTH")) =>
        {
            Some(WANTS_PASSWORD)
        }
        ErrorKind::AuthenticationFailed => Some(REFUSED_USER),
        _ if matches!(code, "WRONGPASS" | "NOAUTH") => Some(REFUSED_USER),
        ErrorKind::RESP3NotSupported => Some(NO_HELLO),
        _ if said.contains("unknown command ") => {
            // The first word after it is the command, in quotes.
            let command = said.split_once("unknown command ");
            let is_select = command
                .and_then(|(_, command)| command.get(1..7))
                .is_some_and(|word| word.eq_ignore_ascii_case("select"));
            Some(if is_select { NO_SELECT } else { NO_HELLO })
        }
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Some(
            "does not speak the protocol of Redis: is it another service, or does it want TLS?",
        ),
        ErrorKind::InvalidClientConfig => Some("cannot be connected to with these settings"),
        ErrorKind::Server(ServerErrorKind::ResponseError) => Some(
            "refused the database: a cluster has number 0 alone, another server as many as its \
             `databases` says",
        ),
        _ => None,
    };
    match wrong {
        Some(wrong) => LockError::misconfigured(at(wrong)),
        None => LockError::unavailable(at(
            "cannot be connected to; start it, or correct its address",
        )),
    }
    .with_source(without_password(info, error))
}

/// Whether the server took the connection, and ended it; by the words, since the driver shows neither
/// the kind nor the type of what it had from the network.
fn has_hung_up(error: &RedisError) -> bool {
    let said = error.to_string().to_lowercase();
    [
        "max number of clients",
        "reset by peer",
        "broken pipe",
        "end of file",
    ]
    .iter()
    .any(|words| said.contains(words))
}

/// What the driver and the server say. A server repeats what it does not understand, and the
/// password, or the beginning of it, is sent along with `HELLO`.
fn without_password(info: &ConnectionInfo, error: RedisError) -> Box<dyn Error + Send + Sync> {
    let said = format!("{error} {error:?}");
    let password = info.redis_settings().password().unwrap_or_default();
    let beginning: String = password.chars().take(4).collect();
    if said.contains("with args") || (!password.is_empty() && said.contains(&beginning)) {
        return "its own words are not shown: the password may be among them".into();
    }
    error.into()
}
