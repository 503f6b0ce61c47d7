//! Connection strings that name Sentinels, and the master that these are asked for.
//!
//! A URL has the hosts with commas between them, and the master before the database:
//! `redis+sentinel://[user][:password@]host[:port][,host[:port]]../master[/database]`.

use url::Url;

use super::given::{Given, once};
use super::hosts::{Host, host};
use super::service::check_master;
use super::wrong;
use crate::LockError;

pub(super) const PORT: u16 = 26379;

/// Takes the hosts out of a URL: the same with one host, which a parser of URLs takes, and the hosts.
pub(super) fn take_hosts(text: &str) -> Result<(String, Vec<Host>), LockError> {
    let (scheme, after) = text
        .split_once("://")
        .ok_or_else(|| wrong("it names no host"))?;
    let end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (authority, rest) = after.split_at(end);
    // Not shown: it is the rest of a password.
    if rest.contains('@') {
        return Err(wrong(
            "it has a `@` after its first `/`, `?` or `#`; write these in a password as %2F, %3F and %23, and \
             a `@` in an option as %40",
        ));
    }
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (format!("{login}@"), hosts),
        None => (String::new(), authority),
    };
    let hosts = hosts.split(',').map(host).collect::<Result<_, _>>()?;
    Ok((format!("{scheme}://{login}host{rest}"), hosts))
}

/// Takes the master and the database from the path: `/master`, `/master/0`, or `/0` where an option has
/// named the master.
pub(super) fn take_path(url: &mut Url, given: &mut Given) -> Result<(), LockError> {
    let path = url.path().trim_matches('/').to_owned();
    url.set_path("");
    let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0);
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let (first, second) = (parts.next(), parts.next());
    let (master, database) = match (first, second) {
        (Some(database), None) if number(database).is_some() => (None, Some(database)),
        parts => parts,
    };
    if let Some(master) = master {
        check_master(master)?;
        once(&mut given.master, Some(master.to_owned()), "serviceName")?;
    }
    if let Some(database) = database {
        let database = number(database).ok_or_else(|| wrong("its database is no number"))?;
        once(&mut given.database, Some(database), "db")?;
    }
    if parts.next().is_some() {
        return Err(wrong("its path has more than a master and a database"));
    }
    Ok(())
}
