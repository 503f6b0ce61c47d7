//! What the options of a connection string say, of either form.

use std::path::PathBuf;
use std::time::Duration;

use ::redis::{ConnectionAddr, IntoConnectionInfo};

use super::service::{Service, check_master};
use super::{Target, resp3, wrong};
use crate::LockError;
use crate::redis::certificates::Certificates;
use crate::redis::options::{Meaning, Setting, meaning};

const NO_MASTER: &str = "it has a user or a password for Sentinels, and names no master to ask them for; name it with \
     `serviceName`";

/// What was said.
#[derive(Default)]
pub(super) struct Given {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: Option<i64>,
    connect_timeout: Option<Duration>,
    pub(super) tls: Option<bool>,
    /// What Sentinels are asked for.
    pub(super) master: Option<String>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
    certificate_name: Option<String>,
    ca_file: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    without_effect: Vec<&'static str>,
}

impl Given {
    /// The option at this position.
    pub(super) fn take(
        &mut self,
        position: usize,
        option: &str,
        value: &str,
    ) -> Result<(), LockError> {
        let (name, setting) = match meaning(position, option, value).map_err(wrong)? {
            Meaning::Sets(name, setting) => (name, setting),
            Meaning::Nothing(name) => {
                self.without_effect.push(name);
                return Ok(());
            }
        };
        // As templates leave it where there is none.
        let text = (!value.is_empty()).then(|| value.to_owned());
        let file = || text.clone().map(PathBuf::from);
        match setting {
            Setting::User => once(&mut self.user, text, name),
            Setting::Password => once(&mut self.password, text, name),
            Setting::Master => {
                text.as_deref().map_or(Ok(()), check_master)?;
                once(&mut self.master, text, name)
            }
            Setting::SentinelUser => once(&mut self.sentinel_user, text, name),
            Setting::SentinelPassword => once(&mut self.sentinel_password, text, name),
            Setting::CertificateName => once(&mut self.certificate_name, text, name),
            Setting::CaFile => once(&mut self.ca_file, file(), name),
            Setting::Certificate => once(&mut self.certificate, file(), name),
            Setting::Key => once(&mut self.key, file(), name),
            Setting::Tls => once(&mut self.tls, Some(boolean(name, value)?), name),
            Setting::Database => {
                let database = i64::try_from(number(name, value)?);
                let database = database.map_err(|_| out_of_range(name))?;
                once(&mut self.database, Some(database), name)
            }
            Setting::ConnectTimeout => {
                let millis = Duration::from_millis(number(name, value)?);
                once(&mut self.connect_timeout, Some(millis), name)
            }
            Setting::Protocol if matches!(value.to_ascii_lowercase().as_str(), "3" | "resp3") => {
                Ok(())
            }
            Setting::Protocol => Err(wrong("its `protocol` is not resp3, which locks need")),
        }
    }

    /// With the servers at these addresses.
    pub(super) fn target(self, addresses: Vec<ConnectionAddr>) -> Result<Target, LockError> {
        if !self.without_effect.is_empty() {
            tracing::info!(
                "options of the Redis connection string change nothing for locks: {}",
                self.without_effect.join(", ")
            );
        }
        let client = match (self.certificate, self.key) {
            (Some(certificate), key) => Some((certificate.clone(), key.unwrap_or(certificate))),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(wrong("it has `ssl_keyfile`, and no `ssl_certfile` with it"));
            }
        };
        let service = match (self.master, self.sentinel_user, self.sentinel_password) {
            (Some(master), user, password) => Some(Service {
                master,
                user,
                password,
            }),
            (None, None, None) => None,
            (None, ..) => return Err(wrong(NO_MASTER)),
        };
        let certificates = Certificates {
            ca_file: self.ca_file,
            client,
            name: self.certificate_name,
        };
        let seeds = addresses.into_iter().map(|address| {
            let info = address
                .into_connection_info()
                .map_err(|error| wrong("the driver does not take it").with_source(error))?;
            let redis = info.redis_settings().clone();
            let mut redis = redis.set_db(self.database.unwrap_or_default());
            if let Some(user) = &self.user {
                redis = redis.set_username(user);
            }
            if let Some(password) = &self.password {
                redis = redis.set_password(password);
            }
            Ok(resp3(info.set_redis_settings(redis)))
        });
        let target = Target {
            seeds: seeds.collect::<Result<_, LockError>>()?,
            service,
            connect_timeout: self.connect_timeout,
            certificates,
        };
        target.check()?;
        Ok(target)
    }
}

/// Two values are a mistake, and which one counts depends on the client.
pub(super) fn once<T: PartialEq>(
    slot: &mut Option<T>,
    value: Option<T>,
    name: &str,
) -> Result<(), LockError> {
    if value.is_some() && slot.is_some() && *slot != value {
        return Err(wrong(format_args!(
            "what its option `{name}` says is there twice, with two values"
        )));
    }
    if value.is_some() {
        *slot = value;
    }
    Ok(())
}

fn boolean(option: &str, value: &str) -> Result<bool, LockError> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(format_args!(
            "its `{option}` is neither true nor false"
        ))),
    }
}

fn number(option: &str, value: &str) -> Result<u64, LockError> {
    value.parse().map_err(|_| out_of_range(option))
}

fn out_of_range(option: &str) -> LockError {
    wrong(format_args!("its `{option}` is no number that fits"))
}
