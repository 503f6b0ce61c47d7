//! A connection to one server.

use std::net::SocketAddr;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::io::AsyncDNSResolver;
use ::redis::io::tcp::TcpSettings;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, PushInfo, RedisError,
    RedisFuture, Value,
};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::certificates::Trust;
use super::connection_string::Target;
use super::overheard::overheard;
use super::refused::{has_hung_up, hung_up, refused};
use super::rights::{Asked, says_not_permitted};
use super::settings::Settings;
use crate::LockError;
use crate::checked::passed;
use crate::server::tls_trouble::TlsTrouble;

/// A client of the server of a connection string, in either of the forms that
/// [`RedisBackend::connect`](super::RedisBackend::connect) takes: for what else a service does with
/// that server, such as a cache. It connects when it is asked to.
///
/// # Errors
///
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured) when the string is wrong, or names the nodes
/// of a cluster, which have no client in common, or Sentinels.
pub fn client(connection_string: &str) -> Result<Client, LockError> {
    let target = Target::parse(connection_string)?;
    target.warn_unless_verified();
    if target.service.is_some() {
        return Err(LockError::misconfigured(
            "the Redis connection string names Sentinels; a client is one of a single server: the driver has \
             `sentinel::SentinelClient` for these",
        ));
    }
    let [info] = &target.seeds[..] else {
        return Err(LockError::misconfigured(
            "the Redis connection string names several nodes; a client is one of a single server",
        ));
    };
    if target.certificates.name.is_some() {
        return Err(LockError::misconfigured(
            "the Redis connection string has `sslHost`, which a client of the driver does not keep: \
             connect by a name that is in the certificate",
        ));
    }
    choose_cryptography(info);
    let trust = Trust::read(&target.certificates)?;
    trust
        .client(info.clone())
        .map_err(|error| refused(info, error))
}

/// Where a connection tells what the server says unasked; an error when the receiver is gone.
pub(super) type Pushes = Box<dyn Fn(PushInfo) -> Result<(), ()> + Send + Sync>;

/// Opens a connection, with the credentials of now; what the server says unasked goes to `pushes`.
pub(super) async fn open(
    info: &ConnectionInfo,
    settings: &Settings,
    pushes: Option<Pushes>,
) -> Result<MultiplexedConnection, LockError> {
    let open = async |info| open_with(&info, settings, pushes).await;
    settings.logins.open(info, open).await
}

/// Opens a connection beside one that was just made, with the credentials of that.
pub(super) async fn open_beside(
    info: &ConnectionInfo,
    settings: &Settings,
) -> Result<MultiplexedConnection, LockError> {
    let open = async |info| open_with(&info, settings, None).await;
    settings.logins.open_beside(info, open).await
}

async fn open_with(
    info: &ConnectionInfo,
    settings: &Settings,
    pushes: Option<Pushes>,
) -> Result<MultiplexedConnection, LockError> {
    choose_cryptography(info);
    let tcp = TcpSettings::default().set_nodelay(true);
    // A peer that does not acknowledge is gone before the lease is: no connection outlives it. Only Linux has
    // the option; what arrives late is refused by the script in any case.
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(settings.lease);
    let info = info.clone().set_tcp_settings(tcp);
    let mut config = AsyncConnectionConfig::new()
        // Ours are around whole exchanges.
        .set_response_timeout(None)
        .set_connection_timeout(None);
    if let Some(pushes) = pushes {
        config = config.set_push_sender(pushes);
    }
    match timeout(settings.connect_timeout(), dial(&info, &config, settings)).await {
        Ok(connection) => connection,
        Err(_) => {
            let (address, within) = (info.addr(), settings.connect_timeout());
            let hint = match address {
                // Without it, a server waits for the end of what it takes for a command.
                ConnectionAddr::TcpTls { .. } => "; does it speak TLS on this port?",
                _ => "",
            };
            Err(LockError::unavailable(format!(
                "the Redis server at {address} did not answer within {within:?}{hint}{SLOW}"
            )))
        }
    }
}

/// Connects by each of the names that the certificate can be for.
async fn dial(
    info: &ConnectionInfo,
    config: &AsyncConnectionConfig,
    settings: &Settings,
) -> Result<MultiplexedConnection, LockError> {
    let target = &settings.target;
    let trust = Trust::read(&target.certificates)?;
    let mut name = target.certificates.name.clone();
    let mut others = target.other_names(info).into_iter();
    loop {
        let (called, config) = match &name {
            Some(name) => called(name, info, config),
            None => (info.clone(), config.clone()),
        };
        let client = trust.client(called).map_err(|error| refused(info, error))?;
        match client
            .get_multiplexed_async_connection_with_config(&config)
            .await
        {
            Err(error) if says_not_permitted(&error.to_string()) => {
                let asked = Asked {
                    settings,
                    is_cluster: None,
                    command: "SELECT",
                };
                return Err(asked.not_permitted(&error.to_string(), error));
            }
            Err(error) if is_for_other_name(&error) => {
                let Some(other) = others.next() else {
                    return Err(refused(info, error));
                };
                name = Some(other);
            }
            Err(error) if has_hung_up(&error) => {
                return Err(hung_up(info, overheard(info).await.as_deref(), error));
            }
            Err(error) => return Err(refused(info, error)),
            Ok(connected) => {
                let tls = match info.addr() {
                    ConnectionAddr::TcpTls {
                        insecure: false, ..
                    } => ", over TLS",
                    ConnectionAddr::TcpTls { .. } => ", over TLS that verifies nothing",
                    _ => ", without TLS",
                };
                passed!("login", "connected to {}{tls}", info.addr());
                return Ok(connected);
            }
        }
    }
}

fn is_for_other_name(error: &RedisError) -> bool {
    TlsTrouble::said(&error.to_string()) == Some(TlsTrouble::OtherName)
}

/// The same server, whose certificate is for this name.
fn called(
    name: &str,
    info: &ConnectionInfo,
    config: &AsyncConnectionConfig,
) -> (ConnectionInfo, AsyncConnectionConfig) {
    let ConnectionAddr::TcpTls {
        host,
        port,
        insecure,
        tls_params,
    } = info.addr().clone()
    else {
        return (info.clone(), config.clone());
    };
    let address = ConnectionAddr::TcpTls {
        host: name.to_owned(),
        port,
        insecure,
        tls_params,
    };
    let config = config.clone().set_dns_resolver(Host(host));
    (info.clone().set_addr(address), config)
}

/// Looks this host up, whatever the server is called.
struct Host(String);

impl AsyncDNSResolver for Host {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        _: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = lookup_host((self.0.as_str(), port)).await?;
            Ok(Box::new(found) as Box<_>)
        })
    }
}

/// The driver panics when rustls has no provider of cryptography or a choice between two.
#[cfg(any(feature = "rustls-ring", feature = "tls-rustls-aws-lc-rs"))]
fn choose_cryptography(info: &ConnectionInfo) {
    use rustls::crypto::CryptoProvider;

    if matches!(info.addr(), ConnectionAddr::TcpTls { .. })
        && CryptoProvider::get_default().is_none()
    {
        #[cfg(feature = "rustls-ring")]
        let provider = rustls::crypto::ring::default_provider();
        #[cfg(not(feature = "rustls-ring"))]
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        // An error is another's choice, made meanwhile.
        let _ = provider.install_default();
    }
}

#[cfg(not(any(feature = "rustls-ring", feature = "tls-rustls-aws-lc-rs")))]
fn choose_cryptography(_: &ConnectionInfo) {}

/// Asks within the bound of one answer.
pub(super) async fn ask(
    connection: &mut MultiplexedConnection,
    command: &::redis::Cmd,
    settings: &Settings,
    within: Duration,
) -> Result<Value, LockError> {
    let failed = |error| {
        let words = command.args_iter().map_while(|word| match word {
            ::redis::Arg::Simple(word) => str::from_utf8(word).ok(),
            _ => None,
        });
        let words: Vec<_> = words.collect();
        let asked = Asked {
            settings,
            is_cluster: (words.first() == Some(&"CLUSTER")).then_some(true),
            command: &words.join(" "),
        };
        asked.failed(error, "the Redis server refused a question")
    };
    match timeout(within, connection.send_packed_command(command)).await {
        Ok(answer) => answer.and_then(Value::extract_error).map_err(failed),
        Err(_) => Err(unanswered(within)),
    }
}

/// The remedy for silence.
const SLOW: &str = "; look at its load (`SLOWLOG GET`, `INFO commandstats`) and at the network, or give it longer \
     (`connectTimeout=10000` in the connection string, in ms)";

/// A server is connected, and silent.
pub(super) fn unanswered(within: Duration) -> LockError {
    LockError::unavailable(format!(
        "the Redis server did not answer within {within:?}{SLOW}"
    ))
}
