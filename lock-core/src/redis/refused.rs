//! Why there is no connection to a server, each cause in a sentence that says what to do.

use std::error::Error;

use ::redis::{ConnectionInfo, ErrorKind, RedisError, ServerErrorKind};

use super::tls;
use crate::LockError;
use crate::server::tls_trouble::TlsTrouble;

/// What a server is that does not know `HELLO`.
const NO_HELLO: &str = "does not speak RESP3: it is older than 6.0, or it does not know `HELLO`";

/// Nor has a Sentinel databases.
const NO_SELECT: &str = "does not have the command `SELECT`, so that there is no database but 0: is it a \
                         Sentinel, or is the command renamed? Name no database";

const REFUSED_USER: &str =
    "refused the user or the password; correct them in the connection string";

const NO_PASSWORD: &str = "has no password for this user, and was shown one: leave it out of the \
                           connection string";

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
    if let Some(trouble) = TlsTrouble::said(&error.to_string()) {
        return LockError::misconfigured(at(tls::sentence(trouble)))
            .with_source(without_password(info, error));
    }
    if let Some(end) = End::of(&error.to_string()) {
        return end.error(info).with_source(without_password(info, error));
    }
    let said = error.detail().unwrap_or_default();
    let wrong = match error.kind() {
        _ if error.to_string().contains("without any password") => Some(NO_PASSWORD),
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
    let is_answer = matches!(error.kind(), ErrorKind::Extension | ErrorKind::Server(_));
    match wrong {
        Some(wrong) => LockError::misconfigured(at(wrong)),
        None if is_answer => LockError::unavailable(at(
            "answers the first command with an error: is it a proxy without a server behind it?",
        )),
        None => LockError::unavailable(at(
            "cannot be connected to; start it, or correct its address",
        )),
    }
    .with_source(without_password(info, error))
}

/// Why there is no connection to a server that took one and ended it. `said` is what it says to a connection
/// before it is asked anything: what it says to one that has asked is often lost with that.
pub(super) fn hung_up(info: &ConnectionInfo, said: Option<&str>, error: RedisError) -> LockError {
    let end = said.and_then(End::of).unwrap_or(End::HungUp);
    end.error(info).with_source(without_password(info, error))
}

/// Whether the server took the connection, and ended it; by the words, since the driver shows neither
/// the kind nor the type of what it had from the network.
pub(super) fn has_hung_up(error: &RedisError) -> bool {
    End::of(&error.to_string()) == Some(End::HungUp)
}

/// Why a connection ended, or could not begin, by the words of servers and of the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Protected,
    TooManyClients,
    HungUp,
    NoDescriptor,
    NoDescriptorInSystem,
    NoPort,
    UnknownName,
}

impl End {
    fn of(said: &str) -> Option<Self> {
        let said = said.to_lowercase();
        let words = [
            ("protected mode", Self::Protected),
            ("max number of clients", Self::TooManyClients),
            ("reset by peer", Self::HungUp),
            ("broken pipe", Self::HungUp),
            ("end of file", Self::HungUp),
            ("too many open files in system", Self::NoDescriptorInSystem),
            ("too many open files", Self::NoDescriptor),
            ("cannot assign requested address", Self::NoPort),
            ("failed to lookup address", Self::UnknownName),
        ];
        let mut words = words.into_iter();
        words.find_map(|(words, end)| said.contains(words).then_some(end))
    }

    fn error(self, info: &ConnectionInfo) -> LockError {
        let server = info.addr();
        match self {
            Self::Protected => LockError::misconfigured(format!(
                "the Redis server at {server} is in protected mode, in which it refuses other machines: give its \
                 user a password (`requirepass`, or `ACL SETUSER`) and name that in the connection string, or set \
                 `protected-mode no` where the network lets nobody else in"
            )),
            Self::TooManyClients => LockError::unavailable(format!(
                "the Redis server at {server} has as many clients as its `maxclients` allows: raise that, or find \
                 what leaves connections open"
            )),
            Self::HungUp => LockError::unavailable(format!(
                "the Redis server at {server} hangs up; does it want TLS, has it as many clients as its \
                 `maxclients` allows, or is it a proxy that has no server behind it, or does not know `HELLO`?"
            )),
            Self::NoDescriptor => LockError::unavailable(format!(
                "the Redis server at {server} cannot be connected to, since this process has no file descriptor \
                 left: raise its limit (`ulimit -n`), or find what leaves files or connections open"
            )),
            Self::NoDescriptorInSystem => LockError::unavailable(format!(
                "the Redis server at {server} cannot be connected to, since this machine has no file descriptor \
                 left: raise `fs.file-max`"
            )),
            Self::NoPort => LockError::unavailable(format!(
                "the Redis server at {server} cannot be connected to, since this machine has no free port left \
                 for it, or not the address: widen `net.ipv4.ip_local_port_range`, or find what makes so many \
                 connections"
            )),
            Self::UnknownName => LockError::unavailable(format!(
                "the Redis server at {server} cannot be connected to, since its name is not known: correct it, \
                 or the DNS of this machine"
            )),
        }
    }
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

#[cfg(test)]
mod tests {
    use ::redis::IntoConnectionInfo;

    use super::*;

    /// As Redis, Valkey, KeyDB and Dragonfly write it, and the operating system.
    #[test]
    fn an_end_is_known_by_the_words_of_servers_and_of_the_system() {
        for (said, end) in [
            (
                "-DENIED Redis is running in protected mode because protected mode is enabled",
                End::Protected,
            ),
            ("-DENIED Running in protected mode", End::Protected),
            ("-ERR max number of clients reached", End::TooManyClients),
            (
                "-ERR max number of clients + cluster connections reached",
                End::TooManyClients,
            ),
            ("Connection reset by peer (os error 104)", End::HungUp),
            ("unexpected end of file", End::HungUp),
            ("Too many open files (os error 24)", End::NoDescriptor),
            (
                "Too many open files in system (os error 23)",
                End::NoDescriptorInSystem,
            ),
            ("Cannot assign requested address (os error 99)", End::NoPort),
        ] {
            assert_eq!(End::of(said), Some(end), "{said}");
        }
        assert_eq!(End::of("Connection refused (os error 111)"), None);
    }

    #[test]
    fn what_only_an_administrator_mends_is_misconfigured() {
        let info = "redis://cache:7000".into_connection_info().unwrap();
        assert!(End::Protected.error(&info).is_misconfigured());
        for end in [End::TooManyClients, End::HungUp, End::NoDescriptor] {
            let error = end.error(&info);
            assert!(error.is_unavailable() && error.to_string().contains("cache:7000"));
        }
    }
}
