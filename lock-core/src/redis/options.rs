//! Options of connection strings: those that are taken, those of other clients that change nothing for
//! a lock, and those that cannot be kept. Names are compared without regard to case, as .NET does.

use crate::server::option;

/// What an option sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    User,
    Password,
    Database,
    ConnectTimeout,
    Tls,
    Protocol,
    CertificateName,
    CaFile,
    Certificate,
    Key,
    /// What Sentinels are asked for.
    Master,
    SentinelUser,
    SentinelPassword,
}

/// What an option means, and its name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Sets(&'static str, Setting),
    Nothing(&'static str),
}

const TAKEN: [(&str, Setting); 27] = [
    ("connectTimeout", Setting::ConnectTimeout),
    ("database", Setting::Database),
    ("db", Setting::Database),
    ("defaultDatabase", Setting::Database),
    ("master_name", Setting::Master),
    ("masterName", Setting::Master),
    ("pass", Setting::Password),
    ("password", Setting::Password),
    ("protocol", Setting::Protocol),
    ("sentinel_master", Setting::Master),
    ("sentinel_password", Setting::SentinelPassword),
    ("sentinel_username", Setting::SentinelUser),
    ("sentinelMasterId", Setting::Master),
    ("sentinelMasterName", Setting::Master),
    ("sentinelPassword", Setting::SentinelPassword),
    ("sentinelUser", Setting::SentinelUser),
    ("sentinelUsername", Setting::SentinelUser),
    ("service_name", Setting::Master),
    ("serviceName", Setting::Master),
    ("ssl", Setting::Tls),
    ("ssl_ca_certs", Setting::CaFile),
    ("ssl_certfile", Setting::Certificate),
    ("ssl_keyfile", Setting::Key),
    ("sslHost", Setting::CertificateName),
    ("tls", Setting::Tls),
    ("user", Setting::User),
    ("username", Setting::User),
];

/// Of redis-py, redis-cli, StackExchange.Redis, ioredis, go-redis, lettuce and others. The backend has
/// bounds, retries and two connections of its own, and finds out what the server is.
const WITHOUT_EFFECT: [&str; 71] = [
    "abortConnect",
    "allowAdmin",
    "asyncTimeout",
    "autoResendUnfulfilledCommands",
    "autoResubscribe",
    "backlogPolicy",
    "cache",
    "channelPrefix",
    "client_name",
    "clientName",
    "cluster",
    "configChannel",
    "configCheckSeconds",
    "conn_max_idle_time",
    "conn_max_lifetime",
    "connectionName",
    "connectRetry",
    "decode_responses",
    "defaultVersion",
    "dial_timeout",
    "enableOfflineQueue",
    "enableReadyCheck",
    "encoding",
    "encoding_errors",
    "family",
    "health_check_interval",
    "heartbeatConsistencyChecks",
    "heartbeatInterval",
    "highIntegrity",
    "idle_timeout",
    "includeDetailInExceptions",
    "includePerformanceCountersInExceptions",
    "keepAlive",
    "lazy",
    "lazyConnect",
    "lib_name",
    "lib_version",
    "libraryName",
    "libraryVersion",
    "max_active_conns",
    "max_connections",
    "max_idle_conns",
    "max_retries",
    "max_retry_backoff",
    "maxRetriesPerRequest",
    "min_idle_conns",
    "min_retry_backoff",
    "name",
    "noDelay",
    "persistent",
    "pool_fifo",
    "pool_size",
    "pool_timeout",
    "read_only",
    "read_timeout",
    "readOnly",
    "resolveDns",
    "responseTimeout",
    "retry_interval",
    "retry_on_timeout",
    "setlib",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
    "syncTimeout",
    "tcp_keepalive",
    "tieBreaker",
    "timeout",
    "version",
    "write_timeout",
    "writeBuffer",
];

/// What to do where certificates are not to be verified.
pub(super) const NAME_THE_CA: &str =
    "certificates are verified: name the file of the authority with `ssl_ca_certs`";
const NAME_THE_SERVER: &str =
    "certificates are verified: give the name that is in the certificate with `sslHost`";
const VERSIONS: &str = "the driver speaks TLS 1.2 and 1.3; demand more on the server";
const NO_LISTS: &str = "the driver does not ask whether a certificate was revoked; remove it";
const NO_PREFIX: &str = "locks have a namespace of their own: `LOCK_NAMESPACE`, or `namespace(..)` of \
                         the builder";
const NO_PROXY: &str = "locks need the server itself; give its address";
const SOCKET: &str = "write unix:///PATH";

/// Options that change nothing with some values, and cannot be kept with others; what to do then.
const KEPT_WITH: [(&str, &[&str], &str); 25] = [
    (
        "addr",
        &[],
        "write the nodes of a cluster as HOST:PORT,HOST:PORT, and Sentinels as \
         redis+sentinel://HOST:PORT,HOST:PORT/MASTER",
    ),
    ("checkCertificateRevocation", &["false"], NO_LISTS),
    ("global_keyprefix", &[""], NO_PREFIX),
    ("key_prefix", &[""], NO_PREFIX),
    ("keyPrefix", &[""], NO_PREFIX),
    ("network", &["tcp", "tcp4", "tcp6"], SOCKET),
    ("path", &[], SOCKET),
    ("prefix", &[""], NO_PREFIX),
    ("proxy", &["none"], NO_PROXY),
    ("rejectUnauthorized", &["true", "1"], NAME_THE_CA),
    ("skip_verify", &["false", "0"], NAME_THE_CA),
    (
        "ssl_ca_data",
        &[],
        "write it to a file, and name that with `ssl_ca_certs`",
    ),
    ("ssl_ca_path", &[], "name a file with `ssl_ca_certs`"),
    ("ssl_cert_reqs", &["required", "cert_required"], NAME_THE_CA),
    (
        "ssl_check_hostname",
        &["true", "1", "yes", "on"],
        NAME_THE_SERVER,
    ),
    (
        "ssl_ciphers",
        &[],
        "the driver chooses; demand ciphers on the server",
    ),
    (
        "ssl_min_version",
        &["tlsv1", "tlsv1_1", "tlsv1_2", "tlsv1.1", "tlsv1.2"],
        VERSIONS,
    ),
    ("ssl_password", &[], "give a key file without a password"),
    ("ssl_validate_ocsp", &["false"], NO_LISTS),
    ("ssl_validate_ocsp_stapled", &["false"], NO_LISTS),
    (
        "sslProtocols",
        &[
            "none",
            "tls|tls11|tls12",
            "tls11|tls12",
            "tls12",
            "tls12|tls13",
            "tls13|tls12",
        ],
        VERSIONS,
    ),
    ("tlsSkipVerify", &["false"], NAME_THE_CA),
    ("tunnel", &[], NO_PROXY),
    ("unix_socket_path", &[], SOCKET),
    ("verifyPeer", &["full", "true"], NAME_THE_CA),
];

/// Options of clients that ask Sentinels, which are written in another way here.
const OF_SENTINEL: [&str; 5] = ["master", "redis_sentinel", "role", "sentinel", "sentinels"];

/// How Sentinels are named.
pub(super) const HOW_SENTINELS: &str = "write redis+sentinel://USER:PASSWORD@HOST:26379,HOST:26379/MASTER/0, or \
     HOST:26379,HOST:26379,serviceName=MASTER,password=PASSWORD, with all Sentinels and the name that they \
     have for the master";

/// What the option at this position means; an error is what is wrong with it, without its value.
pub(super) fn meaning(position: usize, option: &str, value: &str) -> Result<Meaning, String> {
    let is_it = |name: &str| name.eq_ignore_ascii_case(option);
    if let Some((name, setting)) = TAKEN.iter().find(|(name, _)| is_it(name)) {
        return Ok(Meaning::Sets(name, *setting));
    }
    if let Some(name) = WITHOUT_EFFECT.iter().find(|name| is_it(name)) {
        return Ok(Meaning::Nothing(name));
    }
    if let Some((name, kept, advice)) = KEPT_WITH.iter().find(|(name, ..)| is_it(name)) {
        if kept.contains(&value.to_ascii_lowercase().as_str()) {
            return Ok(Meaning::Nothing(name));
        }
        return Err(format!(
            "its option `{name}` has a value that cannot be kept: {advice}"
        ));
    }
    if let Some(name) = OF_SENTINEL.iter().find(|name| is_it(name)) {
        return Err(format!(
            "its option `{name}` is one of Sentinel that is not taken: {HOW_SENTINELS}"
        ));
    }
    // Not shown: it can be the rest of a password.
    if option.starts_with('$') {
        return Err(format!(
            "its option number {position} begins with a `$`, as those of .NET that rename a command: the \
             scripts of locks need the commands by their own names"
        ));
    }
    let known: Vec<_> = TAKEN.iter().map(|(name, _)| *name).collect();
    Err(format!(
        "it {}; if it is the rest of a password, that has to be written as a URL, redis://:PASSWORD@HOST, \
         with `,` as %2C, `=` as %3D and `&` as %26",
        option::unknown(position, option, &known)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_means_two_things() {
        let taken = TAKEN.iter().map(|(name, _)| *name);
        let kept = KEPT_WITH.iter().map(|(name, ..)| *name);
        let all = taken.chain(WITHOUT_EFFECT).chain(kept).chain(OF_SENTINEL);
        let mut all: Vec<_> = all.map(str::to_ascii_lowercase).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn an_option_of_another_client_is_taken_or_named_with_what_to_do() {
        for (option, value) in [
            ("family", "0"),
            ("SyncTimeout", "5000"),
            ("connectretry", "3"),
            ("abortConnect", "false"),
            ("sslProtocols", "Tls12"),
            ("ssl_cert_reqs", "required"),
            ("checkCertificateRevocation", "False"),
            ("tieBreaker", "x"),
            ("keyPrefix", ""),
            ("proxy", "None"),
        ] {
            let meaning = meaning(1, option, value).unwrap();
            assert!(
                matches!(meaning, Meaning::Nothing(_)),
                "{option}: {meaning:?}"
            );
        }
        for (option, value, says) in [
            ("ssl_cert_reqs", "hunter2", "`ssl_ca_certs`"),
            ("ssl_check_hostname", "hunter2", "`sslHost`"),
            ("sslProtocols", "hunter2", "TLS 1.2"),
            ("keyPrefix", "hunter2", "`LOCK_NAMESPACE`"),
            ("proxy", "hunter2", "the server itself"),
            ("sentinels", "hunter2", "redis+sentinel://"),
            ("$SET", "hunter2", "rename a command"),
            ("hunter2", "hunter2", "unknown option (number 7)"),
        ] {
            let said = meaning(7, option, value).unwrap_err();
            assert!(said.contains(says), "{said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
