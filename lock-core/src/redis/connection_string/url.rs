//! The form of a URL.

use ::redis::IntoConnectionInfo;
use url::Url;

use super::given::{Given, once};
use super::scheme::check_scheme;
use super::{Target, hosts, require_tls, sentinels, wrong};
use crate::LockError;
use crate::redis::options::{HOW_SENTINELS, NAME_THE_CA};
use crate::server::hostless::without_host;

/// Reads a URL.
pub(super) fn parse(text: &str) -> Result<Target, LockError> {
    let (text, mut sentinels) = match check_scheme(text)? {
        Some(scheme) => {
            let (text, hosts) = sentinels::take_hosts(text)?;
            let (_, rest) = text.split_once(':').unwrap_or_default();
            (format!("{scheme}:{rest}"), hosts)
        }
        None => (text.to_owned(), Vec::new()),
    };
    let is_socket = text
        .split(':')
        .next()
        .is_some_and(|scheme| scheme.ends_with("unix"));
    let hostless = is_socket.then(|| without_host(&text)).flatten();
    let text = hostless.unwrap_or(text);
    // `ParseError` says what is wrong without the text.
    let mut url = Url::parse(&text).map_err(|error| {
        wrong(
            "it is not a URL; write redis://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of \
             the password percent-encoded: `/` as %2F, `?` as %3F, `#` as %23, `@` as %40, `%` as %25; \
             several nodes of a cluster are written HOST:PORT,HOST:PORT,password=..,ssl=true",
        )
        .with_source(error)
    })?;
    let has_tls = matches!(url.scheme(), "rediss" | "valkeys");
    check_structure(&url)?;
    if has_tls {
        require_tls()?;
    }
    let mut given = Given::default();
    for (n, (option, value)) in url.query_pairs().enumerate() {
        given.take(n + 1, &option, &value)?;
    }
    if !sentinels.is_empty() {
        sentinels::take_path(&mut url, &mut given)?;
        if given.master.is_none() {
            return Err(wrong(format_args!(
                "it names Sentinels, and no master to ask them for: {HOW_SENTINELS}"
            )));
        }
    } else if given.master.is_some() {
        let host = url.host_str().filter(|_| !is_socket);
        let host = host.ok_or_else(|| wrong("it names a master, and no Sentinel to ask for it"))?;
        // In brackets, as an address of IPv6 is in either form.
        sentinels.push((hosts::host(host)?.0, url.port()));
    }
    let has_path = !matches!(url.path(), "" | "/");
    if has_path && !is_socket && url.path().trim_matches('/').parse::<u32>().is_err() {
        return Err(wrong(
            "its database, which stands after the host, is no number; write a socket as unix:///PATH",
        ));
    }
    url.set_query(None);
    // The driver's errors about URLs name no value.
    let info = url
        .into_connection_info()
        .map_err(|error| wrong("the driver does not take it").with_source(error))?;
    let redis = info.redis_settings();
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
    once(&mut given.user, text(redis.username()), "user")?;
    once(&mut given.password, text(redis.password()), "password")?;
    if has_path && !is_socket {
        once(&mut given.database, Some(redis.db()), "db")?;
    }
    if given.tls.is_some_and(|tls| tls != has_tls) {
        return Err(wrong(
            "its option `ssl` and its scheme say two things; write rediss:// for TLS, redis:// without it",
        ));
    }
    if sentinels.is_empty() {
        return given.target(vec![info.addr().clone()]);
    }
    let addresses = hosts::addresses(sentinels, has_tls, sentinels::PORT);
    given.target(addresses)
}

/// Refuses what comes of a password with special characters in it, and what other clients write.
fn check_structure(url: &Url) -> Result<(), LockError> {
    // Not shown: it is the rest of a password that has a `?`.
    if url.query().is_some_and(|query| query.contains('@')) {
        return Err(wrong(
            "it has a `@` after its `?`; write a `?` in a password as %3F, and a `@` in an option as %40",
        ));
    }
    if url.path().contains('@') {
        return Err(wrong(
            "it has a `@` after its `/`; write a `/` in a password as %2F",
        ));
    }
    match url.fragment() {
        Some("insecure") => {
            return Err(wrong(format_args!(
                "its `#insecure` cannot be kept: {NAME_THE_CA}"
            )));
        }
        Some(_) => {
            return Err(wrong(
                "it has a `#`; write a `#` in a password as %23, and the master that Sentinels are asked for \
                 after their hosts: redis+sentinel://HOST,HOST/MASTER",
            ));
        }
        None => {}
    }
    if url.host_str().is_some_and(|host| host.contains(',')) {
        return Err(wrong(
            "it names several hosts; write the nodes of a cluster as HOST:PORT,HOST:PORT,password=..",
        ));
    }
    Ok(())
}
