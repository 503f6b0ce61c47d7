//! Settings from an application's configuration. The names are those of the environment in lower
//! case, so that they can be flattened into a struct that has more, and read from there.

use std::cell::Cell;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::LockSettings;
use super::parse::{parse_lease, parse_marker, parse_provider, parse_switch};
use super::secret::Secret;

#[derive(Deserialize)]
struct Raw {
    database_url: Option<Secret>,
    redis_url: Option<Secret>,
    lock_provider: Option<Secret>,
    lock_namespace: Option<Secret>,
    lock_instance: Option<Secret>,
    lock_dir: Option<Secret>,
    lock_lease: Option<Secret>,
    lock_table: Option<Secret>,
    lock_name_secret: Option<Secret>,
    lock_switch: Option<Secret>,
    lock_marker: Option<Secret>,
}

impl<'de> Deserialize<'de> for LockSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let is_table = Cell::new(false);
        let read = deserializer.deserialize_map(Table(&is_table));
        let raw = read.map_err(|error| match is_table.get() {
            true => error,
            false => Error::custom("the settings of locks have to be a table, with `database_url`"),
        })?;
        // Any of them: what stands in the wrong place can be one.
        let text = |secret: Option<Secret>| secret.map(|secret| secret.0).unwrap_or_default();
        let (switch, marker) = (text(raw.lock_switch), text(raw.lock_marker));
        let (provider, lease) = (text(raw.lock_provider), text(raw.lock_lease));
        let mut settings = Self::new()
            .database_url(text(raw.database_url))
            .redis_url(text(raw.redis_url))
            .namespace(text(raw.lock_namespace))
            .instance(text(raw.lock_instance))
            .dir(text(raw.lock_dir))
            .table(text(raw.lock_table))
            .name_secret(text(raw.lock_name_secret))
            .allow_switch(parse_switch(&switch).map_err(Error::custom)?)
            .require_marker(parse_marker(&marker).map_err(Error::custom)?);
        settings.lease = parse_lease(&lease).map_err(Error::custom)?;
        Ok(match parse_provider(&provider).map_err(Error::custom)? {
            Some(provider) => settings.provider(provider),
            None => settings,
        })
    }
}

/// The table of the settings, and whether there was one. A format that finds something else says what,
/// and that can be a URL: its error is not passed on.
struct Table<'a>(&'a Cell<bool>);

impl<'de> Visitor<'de> for Table<'_> {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table with the settings of locks")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Raw, A::Error> {
        self.0.set(true);
        Raw::deserialize(MapAccessDeserializer::new(map))
    }
}
