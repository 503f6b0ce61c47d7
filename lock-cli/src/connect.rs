//! Connects to the store that the environment and the command line name, and leaves it.

use std::fs;
use std::time::Duration;

use lock_core::{LockError, LockProvider, LockSettings, ProviderKind};

use crate::cli::Store;
use crate::output::warn;

/// What is left to do in the store when a command has ended: an exchange or two.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// Connects as a service with the same settings does.
pub(crate) async fn connect(store: &Store) -> Result<LockProvider, LockError> {
    LockProvider::connect(settings(store)?).await
}

/// Releases and closes what is open, in bounded time.
pub(crate) async fn close(locks: &LockProvider) {
    locks.shutdown(CLOSES_WITHIN).await;
}

fn settings(store: &Store) -> Result<LockSettings, LockError> {
    let mut settings = LockSettings::from_env()?;
    if let Some(namespace) = &store.namespace {
        settings = settings.namespace(namespace);
    }
    if let Some(url) = &store.url {
        if has_secret(url) {
            warn(
                "--url has a password, which each user of this machine sees in the list of processes: give \
                 it by DATABASE_URL or REDIS_URL, or in a file by --url-file",
            );
        }
        settings = at(settings, url);
    }
    if let Some(file) = &store.url_file {
        let url = fs::read_to_string(file).map_err(|error| {
            LockError::misconfigured(format!("--url-file {} cannot be read", file.display()))
                .with_source(error)
        })?;
        let url = url.trim();
        if url.is_empty() {
            let empty = format!(
                "--url-file {} is empty: write a URL into it",
                file.display()
            );
            return Err(LockError::misconfigured(empty));
        }
        settings = at(settings, url);
    }
    Ok(settings)
}

/// The same with the locks at this URL.
fn at(settings: LockSettings, url: &str) -> LockSettings {
    if let Some(directory) = url.strip_prefix("file:") {
        // `file:///var/lock/app` and `file:/var/lock/app` are one directory.
        let directory = directory.strip_prefix("//").unwrap_or(directory);
        return settings.dir(directory).provider(ProviderKind::File);
    }
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        return settings.database_url(url).provider(ProviderKind::Postgres);
    }
    settings.redis_url(url).provider(ProviderKind::Redis)
}

/// Whether there seems to be a password in it.
fn has_secret(url: &str) -> bool {
    let before_host = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'));
    let is_in_login = before_host.is_some_and(|(login, _)| login.contains(':'));
    is_in_login || url.to_ascii_lowercase().contains("password")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_seen_in_either_form_of_url() {
        for (url, has) in [
            ("postgres://app:hunter2@host/db", true),
            ("postgres://host/db?user=app&password=hunter2", true),
            ("host:6379,Password=hunter2", true),
            ("redis://:hunter2@host", true),
            ("postgres://app@host:5432/db", false),
            ("redis://host:6379/0", false),
            ("file:/tmp/locks", false),
        ] {
            assert_eq!(has_secret(url), has, "{url}");
        }
    }
}
