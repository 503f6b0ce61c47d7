//! A name of a server can have several addresses, of which one is silent.
//!
//! The driver tries them in their order, and waits for each as long as the kernel does: minutes, for one
//! whose packets are dropped. So a login that is not through soon has company: the addresses are looked
//! at all together, and where one keeps silent, the login is made to one that does not.

use std::fmt::Write;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgSslMode};
use sqlx::{Connection, Error};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

use super::relay::Relay;
use crate::LockError;

/// How long a login is left alone.
const HEAD_START: Duration = Duration::from_millis(500);

/// How long an address has after another one has answered, at least.
const LATER_BY: Duration = Duration::from_millis(250);

/// How long the login to the name has after that to an address failed.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Silent,
    Answers,
    Refuses,
}

/// The addresses that were looked at for one login.
#[derive(Debug, Default)]
pub(super) struct Tried(Mutex<Vec<(SocketAddr, Known)>>);

impl Tried {
    fn set(&self, tried: Vec<(SocketAddr, Known)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = tried;
    }

    fn know(&self, position: usize, known: Known) {
        let mut tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, before)) = tried.get_mut(position) {
            *before = known;
        }
    }

    /// The same error with the addresses, if one of them was silent.
    pub(super) fn explain(&self, error: LockError) -> LockError {
        let tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !error.is_unavailable() || tried.iter().all(|(_, known)| *known != Known::Silent) {
            return error;
        }
        let mut said = String::from("tried:");
        for (n, (address, known)) in tried.iter().enumerate() {
            let known = match known {
                Known::Silent => "silent",
                Known::Answers => "answers",
                Known::Refuses => "refuses",
            };
            let comma = if n == 0 { "" } else { "," };
            let _ = write!(said, "{comma} {address} ({known})");
        }
        error.with_advice(&said)
    }
}

/// How a connection was made, and how another one is.
pub(super) struct Way {
    pub(super) options: PgConnectOptions,
    /// Whether another address of the name is silent.
    is_around: bool,
    /// Needed until then.
    _relay: Option<Relay>,
}

impl Way {
    fn as_given(options: &PgConnectOptions) -> Self {
        Self {
            options: options.clone(),
            is_around: false,
            _relay: None,
        }
    }

    /// What is wrong with the server of one address is no mistake of the set-up while another one is silent: in
    /// a fail-over the standby answers before it is promoted.
    pub(super) fn explain(&self, error: LockError) -> LockError {
        match self.is_around && error.is_misconfigured() {
            true => error
                .duplicate_as_unavailable()
                .with_advice("another address of the name is silent"),
            false => error,
        }
    }

    /// To this address of the name.
    fn to(address: SocketAddr, options: &PgConnectOptions) -> io::Result<Self> {
        let options = options.clone();
        match options.get_ssl_mode() {
            PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer => Ok(Self {
                options: options.host(&address.ip().to_string()),
                is_around: true,
                _relay: None,
            }),
            // The certificate is for the name, or what comes first there goes by it.
            _ => {
                let relay = Relay::to(address)?;
                Ok(Self {
                    options: options.socket(relay.directory()),
                    is_around: true,
                    _relay: Some(relay),
                })
            }
        }
    }
}

/// Connects.
///
/// # Cancel safety
///
/// Cancel safe: what was under way is closed.
pub(super) async fn connect(
    options: &PgConnectOptions,
    tried: &Tried,
) -> Result<(PgConnection, Way), Error> {
    let mut by_name = pin!(PgConnection::connect_with(options));
    let around = async {
        sleep(HEAD_START).await;
        around_silence(options, tried).await
    };
    let way = tokio::select! {
        biased;
        made = &mut by_name => return Ok((made?, Way::as_given(options))),
        way = around => way,
    };
    tokio::select! {
        biased;
        made = &mut by_name => Ok((made?, Way::as_given(options))),
        made = PgConnection::connect_with(&way.options) => match made {
            Ok(connection) => Ok((connection, way)),
            // It can be the other login that has the last place.
            Err(error) => match timeout(UNDER_WAY, by_name).await {
                Ok(made) => Ok((made?, Way::as_given(options))),
                Err(_) => Err(error),
            },
        },
    }
}

/// The way to an address that answers, as soon as another one is known to be silent. Does not complete
/// where there is none.
async fn around_silence(options: &PgConnectOptions, tried: &Tried) -> Way {
    let (host, port) = (options.get_host(), options.get_port());
    if options.get_socket().is_some() || host.starts_with('/') {
        return pending().await;
    }
    let Ok(found) = lookup_host((host, port)).await else {
        return pending().await;
    };
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    tried.set(addresses.iter().map(|at| (*at, Known::Silent)).collect());
    let first = first_around(&addresses, tried).await;
    match first.and_then(|address| Way::to(address, options).ok()) {
        Some(way) => way,
        None => pending().await,
    }
}

/// The first address that answers, if another one does not; `None` when all have.
async fn first_around(addresses: &[SocketAddr], tried: &Tried) -> Option<SocketAddr> {
    let begun = Instant::now();
    let looks = addresses.iter().enumerate().map(async |(n, address)| {
        let answer = TcpStream::connect(address).await.map(drop);
        tried.know(
            n,
            answer.as_ref().map_or(Known::Refuses, |()| Known::Answers),
        );
        answer.ok().map(|()| *address)
    });
    let mut looks: FuturesUnordered<_> = looks.collect();
    let first = loop {
        if let Some(address) = looks.next().await? {
            break address;
        }
    };
    // Over a slow link all take long.
    let patience = begun.elapsed().max(LATER_BY);
    let rest = timeout(patience, async { while looks.next().await.is_some() {} });
    rest.await.is_err().then_some(first)
}
