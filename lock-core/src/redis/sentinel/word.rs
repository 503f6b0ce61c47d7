//! What one Sentinel says of a master.

use std::collections::HashMap;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    ConnectionAddr, ErrorKind, RedisError, ServerErrorKind, Value, cmd, from_redis_value, pipe,
};

use crate::LockError;

/// The longest name that DNS has.
const LONGEST: usize = 253;

/// Where the master is, as of which configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// Grows with each fail-over.
    pub(super) epoch: u64,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Asks over a connection to the Sentinel at this address; nothing where it does not know the master.
///
/// The number first: a fail-over in between then makes the word one of an older configuration, and not the
/// former master one of the new.
pub(super) async fn ask(
    connection: &mut MultiplexedConnection,
    master: &str,
    address: &ConnectionAddr,
) -> Result<Option<Word>, LockError> {
    let mut questions = pipe();
    questions.cmd("SENTINEL").arg("MASTER").arg(master);
    questions
        .cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(master);
    let answers = connection.send_packed_commands(&questions, 0, 2).await;
    let answers = answers.map_err(|error| refused(address, error))?;
    let mut answers = answers.into_iter();
    let mut next = || match answers.next().map(Value::extract_error) {
        Some(Err(error)) if error.to_string().contains("No such master") => Ok(Value::Nil),
        Some(answer) => answer.map_err(|error| refused(address, error)),
        None => Err(nonsense(address)),
    };
    read(next()?, next()?).ok_or_else(|| nonsense(address))
}

/// What the Sentinel calls itself; nothing where it may not be asked for that.
pub(super) async fn id_of(connection: &mut MultiplexedConnection) -> Option<String> {
    let mut question = cmd("SENTINEL");
    let answer = connection.send_packed_command(question.arg("MYID")).await;
    let id: String = from_redis_value(answer.ok()?).ok()?;
    is_id(&id).then_some(id)
}

/// No more than an identity is kept of what a Sentinel says.
fn is_id(id: &str) -> bool {
    id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The fields of the master, and its address.
fn read(fields: Value, at: Value) -> Option<Option<Word>> {
    if at == Value::Nil || fields == Value::Nil {
        return Some(None);
    }
    let fields: HashMap<String, String> = from_redis_value(fields).ok()?;
    let (host, port): (String, u16) = from_redis_value(at).ok()?;
    let epoch = fields.get("config-epoch")?.parse().ok()?;
    is_host(&host).then_some(Some(Word { epoch, host, port }))
}

/// Whether it can be a name or an address: no more than that of what a Sentinel says is kept, and shown in errors.
fn is_host(host: &str) -> bool {
    let is_of_it = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    (1..=LONGEST).contains(&host.len()) && host.bytes().all(is_of_it)
}

fn nonsense(address: &ConnectionAddr) -> LockError {
    LockError::unavailable(format!(
        "the Redis Sentinel at {address} returned an unexpected reply about its master"
    ))
}

fn refused(address: &ConnectionAddr, error: RedisError) -> LockError {
    let said = error.to_string().to_lowercase();
    if error.code() == Some("NOPERM") || said.contains("no permissions") {
        return LockError::misconfigured(format!(
            "the user of the Redis Sentinel at {address} may not ask it for its master: give it \
             `+sentinel|master +sentinel|get-master-addr-by-name`"
        ))
        .with_source(error);
    }
    if said.contains("noauth") {
        return LockError::misconfigured(format!(
            "the Redis Sentinel at {address} wants a password: give that of the Sentinels with \
             `sentinelPassword` in the connection string, or `sentinel_credentials` of the builder"
        ))
        .with_source(error);
    }
    if said.contains("unknown command") {
        // Not the words of the server, which repeat what it was sent.
        return LockError::misconfigured(format!(
            "the Redis server at {address} is no Sentinel: give the addresses of Sentinels, whose port is \
             26379 mostly, or name no master"
        ));
    }
    let kind = error.kind();
    if kind == ErrorKind::Server(ServerErrorKind::ResponseError) || kind == ErrorKind::Parse {
        return nonsense(address).with_source(error);
    }
    LockError::unavailable(format!("the Redis Sentinel at {address} does not answer"))
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Value {
        let text = |text: &&str| Value::BulkString(text.as_bytes().to_vec());
        Value::Array(texts.iter().map(text).collect())
    }

    #[test]
    fn a_word_is_read_and_nonsense_is_none() {
        let fields = texts(&["name", "shop", "config-epoch", "7"]);
        let word = Word {
            epoch: 7,
            host: "10.0.0.1".to_owned(),
            port: 6379,
        };
        let at = texts(&["10.0.0.1", "6379"]);
        assert_eq!(read(fields.clone(), at.clone()), Some(Some(word)));
        assert_eq!(read(fields.clone(), Value::Nil), Some(None));
        assert_eq!(read(Value::Nil, at.clone()), Some(None));
        for (fields, at) in [
            (texts(&["name", "shop"]), at.clone()),
            (texts(&["config-epoch", "-1"]), at.clone()),
            (Value::Okay, at),
            (fields.clone(), texts(&["10.0.0.1", "65536"])),
            (fields.clone(), texts(&["", "6379"])),
            (fields.clone(), texts(&["a b", "6379"])),
            (fields.clone(), texts(&["a\u{1b}[2J", "6379"])),
            (fields.clone(), texts(&[&"a".repeat(254), "6379"])),
            (fields, texts(&["10.0.0.1"])),
        ] {
            assert_eq!(read(fields, at), None);
        }
    }
}
