//! Which authorities a connection string trusts, and that it has all of what it shows a server which
//! wants a certificate.

use std::env;

use sqlx::postgres::PgConnectOptions;

use crate::LockError;
use crate::server::authorities;

/// Each option by all its names.
const MODE: [&str; 2] = ["sslmode", "ssl-mode"];
const ROOT: [&str; 3] = ["sslrootcert", "ssl-root-cert", "ssl-ca"];
const CERTIFICATE: [&str; 2] = ["sslcert", "ssl-cert"];
const KEY: [&str; 2] = ["sslkey", "ssl-key"];

/// What the driver reads where the connection string says nothing.
const ROOT_VARIABLE: &str = "PGSSLROOTCERT";

/// What libpq calls the authorities that are trusted without a file.
const SYSTEM: &str = "system";

/// Whether the driver has authorities built in, and does not ask the machine.
const BUILT_IN: bool = cfg!(all(
    any(
        feature = "tls-rustls-ring-webpki",
        feature = "tls-rustls-aws-lc-rs"
    ),
    not(feature = "tls-rustls-ring-native-roots"),
    not(feature = "tls-native-tls")
));

/// Whom a connection trusts beside the authorities that the driver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// That of a file.
    File,
    /// None.
    NoOther,
}

type Options = Vec<(String, String)>;

fn value<'o>(options: &'o Options, names: &[&str]) -> Option<&'o str> {
    let named = options.iter().rfind(|(key, _)| names.contains(&&**key));
    named.map(|(_, value)| value.as_str())
}

impl Trust {
    /// Reads the options, and takes out what the driver would take for the name of a file.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub(super) fn of(options: &mut Options) -> Result<Self, &'static str> {
        let has = |names: &[&str]| value(options, names).is_some();
        let is_set = |variable| env::var_os(variable).is_some();
        if has(&CERTIFICATE) && !has(&KEY) && !is_set("PGSSLKEY") {
            return Err("has `sslcert` without `sslkey`; give both");
        }
        if has(&KEY) && !has(&CERTIFICATE) && !is_set("PGSSLCERT") {
            return Err("has `sslkey` without `sslcert`; give both");
        }
        let from_environment = env::var(ROOT_VARIABLE).ok();
        match value(options, &ROOT).or(from_environment.as_deref()) {
            Some(SYSTEM) => {}
            Some(_) => return Ok(Self::File),
            None => return Ok(Self::NoOther),
        }
        match value(options, &MODE) {
            None => options.push(("sslmode".to_owned(), "verify-full".to_owned())),
            Some(mode) if mode.eq_ignore_ascii_case("verify-full") => {}
            // These authorities give a certificate to any owner of a name.
            Some(_) => return Err("has `sslrootcert=system`, which needs `sslmode=verify-full`"),
        }
        options.retain(|(key, _)| !ROOT.contains(&&**key));
        Ok(Self::NoOther)
    }

    /// Tells the driver.
    ///
    /// # Errors
    ///
    /// The directories of `SSL_CERT_DIR` cannot be read, or have no certificate.
    pub(super) fn tell(self, options: PgConnectOptions) -> Result<PgConnectOptions, LockError> {
        if self == Self::File {
            return Ok(options);
        }
        // The other drivers ask for them by themselves.
        if BUILT_IN && authorities::has_directories() {
            let found = authorities::of_environment()?.unwrap_or_default();
            return Ok(options.ssl_root_cert_from_pem(found));
        }
        // Read at each connect.
        let file = env::var("SSL_CERT_FILE").ok();
        if let Some(file) = file.filter(|file| BUILT_IN && !file.is_empty()) {
            return Ok(options.ssl_root_cert(file));
        }
        if env::var_os(ROOT_VARIABLE).is_some() && !cfg!(feature = "tls-native-tls") {
            // In place of the file of that name.
            return Ok(options.ssl_root_cert_from_pem(Vec::new()));
        }
        Ok(options)
    }
}
