//! What a user of the server has to be allowed, and what a refusal says of it.

use std::error::Error;
use std::fmt;

use ::redis::RedisError;

use super::not_now::because;
use super::settings::Settings;
use crate::LockError;

/// On a server of either kind. `AUTH` and `HELLO` are everyone's.
const ALL: &str = "~lock:* &lock:* +del +evalsha +getrange +info +pexpire +pttl +script|load +set +time \
     +zadd +zrange +zrem +zremrangebyscore +zscore";
const SINGLE: &str = "+publish +subscribe +unsubscribe";
const CLUSTER: &str =
    "+spublish +ssubscribe +sunsubscribe +cluster|keyslot +cluster|myid +cluster|slots";
/// For a database other than 0.
const DATABASE: &str = "+select";
const REPLICAS: &str = "+wait";
/// For a list of all that is held: the first is nothing that locks need, and the second only those that are shared.
const LISTING: &str = "+scan +zrange";

/// What a list runs in a script to find the locks.
pub(super) const LIST_KEYS: &str = "SCAN";

/// What it runs to find those who hold a shared lock.
pub(super) const LIST_READERS: &str = "ZRANGE";

/// Where nothing is a key, a channel or a command of its own.
pub(super) const SCRIPTS: &str = "";

/// Something that is asked of a server, by whom and on which kind of server, if that is known.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) settings: &'a Settings,
    pub(super) is_cluster: Option<bool>,
    pub(super) command: &'a str,
}

impl<'a> Asked<'a> {
    /// A command of the scripts.
    pub(super) fn by_scripts(settings: &'a Settings, is_cluster: bool) -> Self {
        Self {
            settings,
            is_cluster: Some(is_cluster),
            command: SCRIPTS,
        }
    }

    /// Why it was not done: for lack of rights or of a command, or for what this sentence says.
    pub(super) fn failed(self, error: RedisError, sentence: &'static str) -> LockError {
        let said = error.to_string();
        if error.code() == Some("NOPERM") {
            return self.not_permitted(&said, error);
        }
        if says_not_there(&said) {
            return self.not_there(error);
        }
        let because = because(error.code().unwrap_or_default());
        LockError::unavailable(format!("{sentence}{because}")).with_source(error)
    }

    /// Why it was not done, if these words of the server say that rights or the command are lacking.
    pub(super) fn lacking(self, said: &str) -> Option<LockError> {
        if says_not_permitted(said) {
            Some(self.not_permitted(said, said))
        } else if says_not_there(said) {
            Some(self.not_there(said))
        } else {
            None
        }
    }

    /// The server has no such command, which no retry mends.
    fn not_there(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> LockError {
        let what = match self.command {
            SCRIPTS => "a command that the scripts of locks run, which locks need".to_owned(),
            LIST_KEYS => format!("`{LIST_KEYS}`, which a list needs and locks do not"),
            command => format!("the command `{command}`, which locks need"),
        };
        LockError::misconfigured(format!(
            "the Redis server does not have {what}: it is renamed or forbidden there \
             (`rename-command`, a proxy, a provider's rules), or the server is no Redis; give it back, or \
             use another server"
        ))
        .with_source(source)
    }

    /// The rights of the user are not enough, in these words of the server.
    pub(super) fn not_permitted(
        self,
        said: &str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> LockError {
        let user = User(self.settings);
        let of_list = match (named(said).as_deref(), self.command) {
            (Some(LIST_KEYS), _) | (None, LIST_KEYS) => {
                Some((LIST_KEYS, "a list of what is held needs and locks do not"))
            }
            (Some(LIST_READERS) | None, LIST_READERS) => Some((
                LIST_READERS,
                "a list of what is held needs, and shared locks do",
            )),
            _ => None,
        };
        if let Some((command, who_needs)) = of_list {
            return LockError::misconfigured(format!(
                "the Redis server does not let the user `{user}` run `{command}`, which {who_needs}; give it what a \
                 list needs: `ACL SETUSER {user} {LISTING}`"
            ))
            .with_source(source);
        }
        let lacks = if said.contains("channel") {
            "use the channels `lock:*`".to_owned()
        } else if said.contains(" key") {
            "use the keys `lock:*`".to_owned()
        } else if let Some(command) = named(said) {
            format!("run `{command}`")
        } else if self.command == SCRIPTS {
            "run a command of its scripts".to_owned()
        } else {
            format!("run `{}`", self.command)
        };
        let lines = match self.is_cluster {
            Some(is_cluster) => format!("`{}`", user.line(is_cluster)),
            None => format!("`{}`, in a cluster `{}`", user.line(false), user.line(true)),
        };
        LockError::misconfigured(format!(
            "the Redis server does not let the user `{user}` {lacks}; give it what locks need: {lines}"
        ))
        .with_source(source)
    }
}

/// The command that these words of a server name.
fn named(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("run the '")?;
    let (command, _) = rest.split_once('\'')?;
    Some(command.to_uppercase().replace('|', " "))
}

/// Whether this is what a server says in place of NOPERM about a command within a script: of before
/// 7.0, of 7.0, of later versions.
pub(super) fn says_not_permitted(error: &str) -> bool {
    [
        "NOPERM",
        "The user executing the script",
        "ACL failure",
        "has no permissions",
    ]
    .iter()
    .any(|said| error.contains(said))
}

/// Whether this is what a server, or a proxy in front of it, says of a command that it does not have.
/// What else may be wrong with it, such as that it loads its data, has other words.
fn says_not_there(error: &str) -> bool {
    let error = error.to_lowercase();
    [
        "unknown command",
        "unknown redis command",
        "unknown subcommand",
        "unsupported command",
        "command is not allowed",
        "command not supported",
        "command is not supported",
        "command is not available",
        "command is disabled",
        "not implemented",
    ]
    .iter()
    .any(|said| error.contains(said))
}

/// Whom the server knows us as.
struct User<'a>(&'a Settings);

impl User<'_> {
    /// Gives the user all that it needs, and nothing more.
    fn line(&self, is_cluster: bool) -> String {
        let kind = if is_cluster { CLUSTER } else { SINGLE };
        let mut line = format!("ACL SETUSER {self} {ALL} {kind}");
        let database = self.seed().is_some_and(|redis| redis.db() != 0);
        let replicas = self.0.replicas > 0;
        for (is_needed, right) in [(database, DATABASE), (replicas, REPLICAS)] {
            if is_needed {
                line = line + " " + right;
            }
        }
        line
    }

    fn seed(&self) -> Option<&::redis::RedisConnectionInfo> {
        self.0
            .target
            .seeds
            .first()
            .map(::redis::ConnectionInfo::redis_settings)
    }
}

impl fmt::Display for User<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.seed().and_then(|redis| redis.username());
        f.write_str(name.unwrap_or("default"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = include_str!("mod.rs");

    #[test]
    fn the_documented_rights_are_those_of_the_errors() {
        for (target, replicas, is_cluster, beside) in [
            ("redis://app:x@host", 0, false, ""),
            ("redis://app:x@host", 0, true, ""),
            ("redis://app:x@host/2", 1, false, " +select +wait"),
        ] {
            let settings = Settings {
                replicas,
                ..Settings::of(target)
            };
            let line = User(&settings).line(is_cluster);
            let line = line.strip_suffix(beside).unwrap();
            let lines = DOCS
                .lines()
                .map(|line| line.trim_start_matches("//!").trim());
            let documented: Vec<_> = lines.collect();
            let documented = documented.join(" ");
            assert!(documented.contains(line), "{line}");
        }
        for right in [DATABASE, REPLICAS, LISTING] {
            assert!(DOCS.contains(&format!("`{right}`")), "{right}");
        }
    }

    #[test]
    fn a_command_that_is_not_there_is_told_from_a_server_that_cannot_now() {
        for said in [
            "ERR unknown command 'SET', with args beginning with: 'a'",
            "ERR Unknown Redis command called from script script: 1, on @user_script:35.",
            "ERR unknown subcommand 'LOAD'. Try SCRIPT HELP.",
            "unsupported command 'subscribe'",
            "ERR Command is not available: 'WAIT'. See https://docs.example",
        ] {
            assert!(says_not_there(said), "{said}");
        }
        for said in [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "MISCONF Errors writing to the AOF file",
            "CLUSTERDOWN The cluster is down",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "BUSY Redis is busy running a script.",
        ] {
            assert!(!says_not_there(said), "{said}");
        }
    }

    #[test]
    fn what_only_a_list_needs_is_not_named_as_a_need_of_locks() {
        let settings = Settings::of("redis://host");
        let asked = Asked {
            settings: &settings,
            is_cluster: None,
            command: LIST_KEYS,
        };
        let renamed = "ERR Unknown Redis command called from script script: 1";
        let said = asked.lacking(renamed).unwrap().to_string();
        assert!(
            said.contains("`SCAN`, which a list needs and locks do not: it is renamed"),
            "{said}"
        );
    }

    #[test]
    fn a_refusal_names_what_was_refused_and_the_line_that_gives_it() {
        let settings = Settings::of("redis://host");
        let said = |command, said: &str, is_cluster| {
            let asked = Asked {
                settings: &settings,
                is_cluster,
                command,
            };
            asked.not_permitted(said, "").to_string()
        };
        let single = said(
            "GETRANGE",
            "has no permissions to run the 'getrange' command",
            Some(false),
        );
        assert!(
            single.contains("the user `default` run `GETRANGE`"),
            "{single}"
        );
        assert!(single.contains("`ACL SETUSER default ~lock:*"), "{single}");
        assert!(!single.contains("ssubscribe"), "{single}");
        let listing = said(
            LIST_KEYS,
            "has no permissions to run the 'scan' command",
            None,
        );
        assert!(
            listing.ends_with("`ACL SETUSER default +scan +zrange`"),
            "{listing}"
        );
        // As the scripts of Redis 7.0 are refused, which name no command.
        let readers = said(
            LIST_READERS,
            "The user executing the script can't run this command or subcommand script: 1",
            None,
        );
        assert!(
            readers.contains("run `ZRANGE`") && readers.ends_with("+scan +zrange`"),
            "{readers}"
        );
        let other = said(
            LIST_KEYS,
            "has no permissions to run the 'evalsha' command",
            Some(false),
        );
        assert!(other.contains("run `EVALSHA`"), "{other}");
        let channels = said("SUBSCRIBE", "no permissions to access a channel", None);
        assert!(channels.contains("channels `lock:*`"), "{channels}");
        assert!(channels.contains("in a cluster `ACL SETUSER"), "{channels}");
        let keys = said(
            "GET",
            "access one of the keys used as arguments",
            Some(true),
        );
        assert!(
            keys.contains("keys `lock:*`") && keys.contains("+spublish"),
            "{keys}"
        );
    }
}
