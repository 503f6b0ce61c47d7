//! Settings from an application's configuration. The names are those of the environment in lower
//! case, so that they can be flattened into a struct that has more, and read from there.

use std::path::PathBuf;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::secret::Secret;
use super::{LockSettings, parse_provider, parse_switch};

#[derive(Deserialize)]
struct Raw {
    database_url: Option<Secret>,
    redis_url: Option<Secret>,
    lock_provider: Option<String>,
    lock_namespace: Option<String>,
    lock_dir: Option<PathBuf>,
    lock_name_secret: Option<Secret>,
    lock_switch: Option<String>,
}

impl<'de> Deserialize<'de> for LockSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Raw::deserialize(deserializer)?;
        let text = |secret: Option<Secret>| secret.map(|secret| secret.0).unwrap_or_default();
        let switch = raw.lock_switch.unwrap_or_default();
        let provider = raw.lock_provider.unwrap_or_default();
        let settings = Self::new()
            .database_url(text(raw.database_url))
            .redis_url(text(raw.redis_url))
            .namespace(raw.lock_namespace.unwrap_or_default())
            .dir(raw.lock_dir.unwrap_or_default())
            .name_secret(text(raw.lock_name_secret))
            .allow_switch(parse_switch(&switch).map_err(Error::custom)?);
        Ok(match parse_provider(&provider).map_err(Error::custom)? {
            Some(provider) => settings.provider(provider),
            None => settings,
        })
    }
}
