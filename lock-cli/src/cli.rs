//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, value_parser};
use clap_complete::Shell;
use lock_core::LockName;

// Paragraphs are one line each, which is broken where the terminal ends; lists fit into 80 columns.

const ENVIRONMENT: &str = "\
ENVIRONMENT:
  DATABASE_URL, REDIS_URL   the servers; Redis given, Redis holds the locks,
                            else PostgreSQL, else files of this machine
  LOCK_PROVIDER             `postgres`, `postgres-table`, `redis` or `file`:
                            this one, or no start
  LOCK_NAMESPACE            keeps the locks of applications in one store apart
  LOCK_INSTANCE             what this process is called in the store
  LOCK_DIR                  where lock files are
  LOCK_LEASE                how long a frozen holder keeps a lock on a server:
                            `30s`, `500ms`; one value for all
  LOCK_TABLE                the table of `postgres-table`: `locks.leases`
  LOCK_NAME_SECRET          the key of `:hashed` values in names
  LOCK_MARKER               `optional`: starts also where DATABASE_URL leads to
                            a pooler and the locks are in Redis or files
  LOCK_SWITCH               `allow`: during a planned change of the provider
  NO_COLOR                  no colours, also on a terminal

All LOCK_* are as for the services that use the same locks. What a service has chosen in its code, as a table or a \
lease, has to be given to dlock by them.";

const RUN: &str = "\
The command runs as without dlock: with the same standard streams, environment and terminal. It has in addition \
LOCK_NAME and LOCK_FENCING_TOKEN, a number greater than that of any earlier holder: pass it to what the command \
writes to, so that a holder which was overtaken is refused there.

It runs in a process group of its own. Signals that dlock receives go to that group. When the lock is lost, all \
that the command has started has SIGTERM and, after --grace, SIGKILL, also outside of the group (timeout, setsid, a \
daemon). A command with more rights than dlock, as sudo, cannot be stopped by it, and runs on without the lock: dlock \
says so, and waits for it. When dlock is killed, also by SIGKILL, the group is killed; what has left it is not reached \
then. What the command leaves running when it ends is neither stopped nor locked. A job that is put aside (Ctrl-Z) for \
longer than the lease of its lock (LOCK_LEASE, or 30 s, on a server) has lost the lock, and is ended when it goes on.

With --wait a store that cannot be reached is tried again until the wait is over. Without it, and with --skip alone, \
dlock ends with 69 instead.

With --at-least Redis and a lease table keep the lock closed by themselves. PostgreSQL and files do not: there dlock \
ends when the time is over, with the status of the command, and if it is stopped before, the lock is free.

With --permits each holder has a slot, which is a lock of its own: LOCK_NAME is NAME#SLOT, and tokens grow from \
holder to holder of one slot. With --permits 1 and without --permits there are two locks.

With --shared the command is a reader: it runs together with the others that have --shared, and never beside one \
that has not. LOCK_FENCING_TOKEN is not there: tokens order those that hold a lock alone. What waits to hold the lock \
alone keeps out readers that come later.

EXIT STATUS:
  that of the command; 128+n where signal n has ended it
   0  with --skip: another process holds the lock
  64  wrong usage
  69  the store of the locks does not answer, or grants no lock now
  70  the lock was lost while the command ran: what it did last may
      not have been alone
  71  the operating system refused something
  75  another process holds the lock, for all of --wait
  78  the settings, the store or the rights in it are wrong:
      see `dlock doctor`
  126, 127  the command cannot be executed, or is not there

EXAMPLES:
  dlock run job:nightly --wait 5s -- ./backup.sh --full

  # from cron, each minute on several machines
  dlock run job:report --skip --at-least 50s -- ./report.sh

  # two at a time
  dlock run export:run:acme --permits 2 -- ./export.sh acme

  # beside other readers and no import; and alone
  dlock run catalog:read:7 --shared -- ./report.sh 7
  dlock run catalog:read:7 -- ./import.sh 7";

/// The other commands.
const STATUSES: &str = "\
EXIT STATUS:
   0  done; for `holder`: the lock is held; for `doctor`: all is well
   1  for `holder`: the lock is free; for `doctor`: there are warnings
   2  for `doctor`: something has failed
  64  wrong usage
  69  the store of the locks does not answer, or grants no lock now
  71  the operating system refused something
  78  the settings, the store or the rights in it are wrong";

/// Runs commands under distributed locks, and tells who holds what.
#[derive(Debug, Parser)]
#[command(name = "dlock", version, after_help = ENVIRONMENT)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) store: Store,
    /// Tells more of what it does: once the steps, twice everything.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where the locks are, if not where the environment says.
#[derive(Args, Debug, Default)]
pub(crate) struct Store {
    /// The store: postgres://.., redis://.., host:6379,.. or file:DIRECTORY. All who may call ps(1) see it.
    #[arg(long, global = true, value_name = "URL", conflicts_with = "url_file")]
    pub(crate) url: Option<String>,
    /// A file with the same, for a URL with a password.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) url_file: Option<PathBuf>,
    /// Keeps the locks of several applications in one store apart, as LOCK_NAMESPACE.
    #[arg(long, global = true, value_name = "TEXT")]
    pub(crate) namespace: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a command while it holds a lock.
    #[command(after_help = RUN)]
    Run(Run),
    /// Tells who holds a lock: exit status 0 if it is held, 1 if it is free.
    #[command(after_help = STATUSES)]
    Holder(Holder),
    /// Lists what is held in the store, of all namespaces.
    #[command(after_help = STATUSES)]
    List(List),
    /// Checks the settings, the store and the rights there: exit status 0, 1 with warnings, 2 with failures.
    #[command(after_help = STATUSES)]
    Doctor(Doctor),
    /// Prints the completions for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Prints a manual page, for man(1).
    Man {
        /// Of which command: `run`, `holder`, `list` or `doctor`; without it of all together.
        command: Option<String>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The lock: ENTITY:OPERATION:ID, or job:NAME.
    #[arg(value_name = "NAME")]
    pub(crate) name: LockName,
    /// Waits for the store and the lock for so long (`5s`, `2min`, a number of seconds); without it, for the lock
    /// as long as it takes.
    #[arg(short, long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true)]
    pub(crate) wait: Option<Duration>,
    /// Exits with 0 where another process holds the lock; without --wait it is tried once.
    #[arg(long)]
    pub(crate) skip: bool,
    /// Counts the lock as lost once it was held for so long, which stops the command.
    #[arg(long, value_name = "TIME", value_parser = some_time, allow_hyphen_values = true)]
    pub(crate) max_hold: Option<Duration>,
    /// Keeps the lock closed for so long from when it was acquired, also after the command has ended: a short
    /// job that several machines start runs once for each tick.
    #[arg(long, value_name = "TIME", value_parser = duration, allow_hyphen_values = true)]
    pub(crate) at_least: Option<Duration>,
    /// Lets so many commands hold the lock at a time, on all machines together; each gives the same number.
    #[arg(
        long,
        value_name = "COUNT",
        value_parser = value_parser!(u16).range(1..=256),
        allow_hyphen_values = true
    )]
    pub(crate) permits: Option<u16>,
    /// Holds the lock together with all that have this option too, on all machines, and never beside one that has
    /// not.
    #[arg(long, conflicts_with_all = ["permits", "at_least"])]
    pub(crate) shared: bool,
    /// The time from SIGTERM to SIGKILL when the lock is lost.
    #[arg(
        long,
        value_name = "TIME",
        value_parser = duration,
        allow_hyphen_values = true,
        default_value = "10s"
    )]
    pub(crate) grace: Duration,
    /// The command and its arguments.
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct Holder {
    /// The lock: ENTITY:OPERATION:ID, or job:NAME.
    #[arg(value_name = "NAME")]
    pub(crate) name: LockName,
    /// Of a lock with so many permits, which slots are held by whom.
    #[arg(
        long,
        value_name = "COUNT",
        value_parser = value_parser!(u16).range(1..=256),
        allow_hyphen_values = true
    )]
    pub(crate) permits: Option<u16>,
    /// One object of JSON, or null; with --permits a list of the slots.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Only those whose name, key or instance begins so. Stores know locks by a hash of the name: see
    /// `dlock holder` for one name.
    #[arg(value_name = "PREFIX", default_value = "")]
    pub(crate) prefix: String,
    /// One object of JSON; with --watch one a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Lists again every two seconds, until it is interrupted.
    #[arg(long)]
    pub(crate) watch: bool,
    /// Shows no more than so many: those that are held longest.
    #[arg(
        long,
        value_name = "COUNT",
        default_value_t = 200,
        allow_hyphen_values = true
    )]
    pub(crate) limit: usize,
}

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// One object of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Cli {
    /// Reads the command line.
    ///
    /// A word that looks like an option, where the command of `run` is expected, is an option that there is not;
    /// after `--` it is the command.
    pub(crate) fn read(words: &[OsString]) -> Result<Self, clap::Error> {
        let cli = Self::try_parse_from(words)?;
        if let Command::Run(run) = &cli.command {
            let begin = words.len() - run.command.len();
            let first = run.command[0].to_string_lossy();
            if first.starts_with('-') && words[begin - 1] != "--" {
                return Err(no_option(&first));
            }
        }
        Ok(cli)
    }
}

fn no_option(word: &str) -> clap::Error {
    let mut all = Cli::command();
    all.build();
    let run = all.find_subcommand_mut("run").expect("it is there");
    run.error(
        ErrorKind::UnknownArgument,
        format!(
            "unexpected argument '{word}' found\n\n  tip: options come before the name, or after it with a blank before \
             their value, and the command after '--', as in `dlock run --wait 5s job:nightly -- ./backup.sh`"
        ),
    )
}

/// A time that is not over when it begins.
fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => {
            Err("it is no time: the lock would be lost when it is acquired".to_owned())
        }
        time => Ok(time),
    }
}

/// A time with units, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_with_units_or_seconds() {
        for (text, millis) in [
            ("5", 5_000),
            ("0.5", 500),
            ("5s", 5_000),
            ("1min 2s", 62_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "-1", "5 parsecs", "NaN", "1e300"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_option_that_there_is_not_is_no_command() {
        let read = |words: &[&str]| {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            Cli::read(&words)
        };
        for words in [
            &["dlock", "run", "job:a", "--skipp", "--", "ls"][..],
            &["dlock", "run", "job:a", "--skipp", "ls"],
            &["dlock", "run", "job:a", "--skip", "-x"],
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
        for words in [
            &["dlock", "run", "job:a", "--", "--skipp"][..],
            &["dlock", "run", "job:a", "ls", "-l"],
            &["dlock", "run", "job:a", "--", "ls", "--", "-l"],
        ] {
            assert!(read(words).is_ok(), "{words:?}");
        }
    }

    #[test]
    fn what_follows_the_command_is_its_own() {
        let words = [
            "dlock", "run", "job:a", "--skip", "ls", "--wait", "x", "--", "-l",
        ];
        let Command::Run(run) = Cli::try_parse_from(words).unwrap().command else {
            panic!()
        };
        assert!(run.skip && run.wait.is_none());
        assert_eq!(run.command, ["ls", "--wait", "x", "--", "-l"]);
    }
}
