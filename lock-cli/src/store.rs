//! Which store the environment and the command line name.

use std::env;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lock_core::{LockError, LockSettings, ProviderKind};
use tokio::task::spawn_blocking;

use crate::cli::Store;
use crate::telling::warn;

/// What says where the locks are, beside the options.
const CHOOSING: [&str; 4] = ["DATABASE_URL", "REDIS_URL", "LOCK_PROVIDER", "LOCK_DIR"];

/// What is to be known of a lock whose store nothing has named.
pub(crate) const UNCHOSEN: &str = "no store is chosen: the locks are files of this user, and other machines and users do not \
     see them; give --url, DATABASE_URL or REDIS_URL, or LOCK_DIR where files are meant";

/// How the texts begin that are understood.
const FORMS: &str = "write postgres://.., redis://.., HOST:6379,.. or file:DIRECTORY";

/// What a file with a URL has at most, in bytes. A device may have no end.
const LENGTH_MAX: u64 = 64 * 1024;

/// Whether an option or the environment says where the locks are.
pub(crate) fn is_chosen(store: &Store) -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !is_blank(&value.to_string_lossy()));
    store.url.is_some() || store.url_file.is_some() || CHOOSING.into_iter().any(is_set)
}

/// The settings of a service in this environment, with what the options say.
///
/// # Cancel safety
///
/// Cancel safe: a file that never ends, as a pipe without a writer, is left behind.
pub(crate) async fn settings(store: &Store) -> Result<LockSettings, LockError> {
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
        return at(settings, url, "--url");
    }
    if let Some(file) = &store.url_file {
        let option = format!("--url-file {}", file.display());
        let (text, metadata) = read(file.clone()).await.map_err(|error| {
            LockError::misconfigured(format!("{option} cannot be read")).with_source(error)
        })?;
        let url = only_line(&text, &option)?;
        if has_secret(url) {
            warn_unless_private(file, &metadata);
        }
        return at(settings, url, &option);
    }
    Ok(settings)
}

async fn read(file: PathBuf) -> io::Result<(String, Metadata)> {
    let reading = spawn_blocking(move || {
        let file = File::open(file)?;
        let mut text = Vec::new();
        (&file).take(LENGTH_MAX + 1).read_to_end(&mut text)?;
        if text.len() as u64 > LENGTH_MAX {
            return Err(io::Error::other("it is longer than 64 KiB, and no URL is"));
        }
        let text = String::from_utf8(text).map_err(io::Error::other)?;
        Ok((text, file.metadata()?))
    });
    reading.await.map_err(io::Error::other)?
}

/// The line of a file that is neither blank nor a comment.
fn only_line<'t>(text: &'t str, option: &str) -> Result<&'t str, LockError> {
    let lines = text.lines().map(trimmed);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    match (lines.next(), lines.count()) {
        (Some(line), 0) => Ok(line),
        (Some(_), more) => Err(LockError::misconfigured(format!(
            "{option}: it has {} lines beside comments; leave the one with the URL",
            more + 1
        ))),
        (None, _) => Err(empty(option)),
    }
}

/// A password is for those who start the command: their group may be made for that, all users are not.
fn warn_unless_private(file: &Path, metadata: &Metadata) {
    if metadata.is_file() && metadata.permissions().mode() & 0o004 != 0 {
        let file = file.display();
        warn(&format!(
            "--url-file {file} has a password, and each user of this machine may read it: run `chmod 600 {file}`"
        ));
    }
}

/// The same with the locks at this URL.
fn at(settings: LockSettings, url: &str, option: &str) -> Result<LockSettings, LockError> {
    let url = trimmed(url);
    if url.is_empty() {
        return Err(empty(option));
    }
    let (scheme, rest) = url.split_once(':').unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    let settings = settings.url_from(option);
    if scheme == "file" {
        // `file:///var/lock/app` and `file:/var/lock/app` are one directory.
        let local = rest.strip_prefix("//").map(trimmed);
        if local.is_some_and(|path| !path.is_empty() && !path.starts_with('/')) {
            return Err(LockError::misconfigured(format!(
                "{option}: after `file://` comes an absolute path, and no host; write file:/var/lock/app, or \
                 file:DIRECTORY for one below the current directory"
            )));
        }
        let directory = local.unwrap_or_else(|| trimmed(rest));
        if directory.is_empty() {
            return Err(LockError::misconfigured(format!(
                "{option}: `file:` names no directory; write file:/var/lock/app, say"
            )));
        }
        return Ok(settings.dir(directory).provider(ProviderKind::File));
    }
    // Schemes are the same in both cases; a host and its port are as they are.
    let url = match rest.starts_with("//") {
        true => format!("{scheme}:{rest}"),
        false => url.to_owned(),
    };
    Ok(match &*scheme {
        "postgres" | "postgresql" => settings.database_url(url).provider(in_postgres()),
        _ => settings.redis_url(url).provider(ProviderKind::Redis),
    })
}

/// How a database holds the locks: as the environment says, if it says that of one.
fn in_postgres() -> ProviderKind {
    let named = env::var("LOCK_PROVIDER").unwrap_or_default();
    match trimmed(&named).parse() {
        Ok(ProviderKind::PostgresTable) => ProviderKind::PostgresTable,
        _ => ProviderKind::Postgres,
    }
}

fn empty(option: &str) -> LockError {
    LockError::misconfigured(format!("{option}: it is empty; {FORMS}"))
}

/// Without blanks and a byte order mark at its ends.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

fn is_blank(text: &str) -> bool {
    trimmed(text).is_empty()
}

/// Whether there seems to be a password in it.
fn has_secret(url: &str) -> bool {
    let before_host = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'));
    let is_in_login = before_host.is_some_and(|(login, _)| login.contains(':'));
    let url = url.to_ascii_lowercase();
    let mut options = url
        .split(['?', '&', ','])
        .filter_map(|option| option.split_once('='));
    is_in_login || url.contains("password") || options.any(|(name, _)| name.trim() == "pass")
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
            ("host:6379,Pass=hunter2", true),
            ("redis://host?db=1&pass=hunter2", true),
            ("host:26379,serviceName=m,sentinelPassword=hunter2", true),
            ("postgres://app@host:5432/db", false),
            ("redis://host:6379/0", false),
            ("file:/tmp/locks", false),
            ("postgres://host/db?sslkey=/bypass=x", false),
        ] {
            assert_eq!(has_secret(url), has, "{url}");
        }
    }

    #[test]
    fn a_file_has_one_line_beside_comments() {
        for text in [
            "redis://a",
            "redis://a\r\n",
            "\u{feff}redis://a\n\n",
            "# of the fleet\n\n  redis://a\n",
            "\u{feff}# of the fleet\nredis://a",
        ] {
            assert_eq!(only_line(text, "").unwrap(), "redis://a", "{text:?}");
        }
        for text in [
            "",
            "\u{feff}",
            "\n\n",
            "# redis://a",
            "redis://a\nredis://b",
        ] {
            let error = only_line(text, "--url-file x").unwrap_err().to_string();
            assert!(error.contains("--url-file x: it "), "{error}");
        }
    }

    #[test]
    fn a_scheme_is_the_same_in_both_cases_and_the_rest_is_as_it_is() {
        let at = |url| format!("{:?}", at(LockSettings::new(), url, "--url").unwrap());
        for (one, other) in [
            ("POSTGRES://db/Shop", "postgres://db/Shop"),
            ("PostgreSQL://db/Shop", "postgresql://db/Shop"),
            ("Redis://Host/1", "redis://Host/1"),
            ("FILE:/Locks", "file:/Locks"),
            ("file:///Locks", "file:/Locks"),
        ] {
            assert_eq!(at(one), at(other), "{one}");
        }
        assert!(at("file:Locks").contains("Locks"));
        assert!(at("Host:6379").contains("Redis"));
    }
}
