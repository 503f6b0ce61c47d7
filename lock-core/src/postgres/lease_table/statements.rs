//! Statements whose plans the sessions of the server keep.
//!
//! To plan the statement that acquires takes the server several times as long as to run it. So a session is taught
//! the frequent ones, by `PREPARE` of SQL, and a request names them by a hash of what they say. Behind a pooler any
//! session can be the one that a request reaches: one that was not taught what it names answers so, and has done
//! nothing; the request is sent again, and teaches it first. Where sessions cannot be taught, which takes `DO`,
//! requests spell their statements.

use std::array;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::literal::Text;
use super::sql::Of;

/// How many requests teach the session that they reach, after one that was not taught: where there is one there
/// are others, and each would be an error in the log of the server.
const DOUBTED: usize = 32;

/// A statement with its arguments, as they are written.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Head([String; 1]),
    Release([String; 5]),
    Renew([String; 5]),
    Acquire([String; 11]),
    Look([String; 2]),
    Gather([String; 7]),
    Leave([String; 4]),
    RenewShares([String; 5]),
    Share([String; 7]),
}

impl Call {
    /// How many there are before those of readers.
    const WITHOUT_READERS: usize = 5;

    /// Each with its parameters for arguments, in order.
    fn all() -> [Self; 9] {
        [
            Self::Head(parameters()),
            Self::Release(parameters()),
            Self::Renew(parameters()),
            Self::Acquire(parameters()),
            Self::Look(parameters()),
            Self::Gather(parameters()),
            Self::Leave(parameters()),
            Self::RenewShares(parameters()),
            Self::Share(parameters()),
        ]
    }

    const fn place(&self) -> usize {
        match self {
            Self::Head(_) => 0,
            Self::Release(_) => 1,
            Self::Renew(_) => 2,
            Self::Acquire(_) => 3,
            Self::Look(_) => 4,
            Self::Gather(_) => 5,
            Self::Leave(_) => 6,
            Self::RenewShares(_) => 7,
            Self::Share(_) => 8,
        }
    }

    /// Whether requests without readers do without it.
    pub(super) const fn is_of_readers(&self) -> bool {
        self.place() >= Self::WITHOUT_READERS
    }

    fn arguments(&self) -> &[String] {
        match self {
            Self::Head(arguments) => arguments,
            Self::Release(arguments) | Self::Renew(arguments) | Self::RenewShares(arguments) => {
                arguments
            }
            Self::Acquire(arguments) => arguments,
            Self::Look(arguments) => arguments,
            Self::Gather(arguments) | Self::Share(arguments) => arguments,
            Self::Leave(arguments) => arguments,
        }
    }

    /// The statement.
    fn spelled(&self, of: &Of<'_>) -> String {
        match self {
            Self::Head(arguments) => of.head(texts(arguments)),
            Self::Release(arguments) => of.release(texts(arguments)),
            Self::Renew(arguments) => of.renew(texts(arguments)),
            Self::Acquire(arguments) => of.acquire(texts(arguments)),
            Self::Look(arguments) => of.look(texts(arguments)),
            Self::Gather(arguments) => of.gather(texts(arguments)),
            Self::Leave(arguments) => of.leave(texts(arguments)),
            Self::RenewShares(arguments) => of.renew_shares(texts(arguments)),
            Self::Share(arguments) => of.share(texts(arguments)),
        }
    }
}

fn parameters<const N: usize>() -> [String; N] {
    array::from_fn(|at| format!("${}", at + 1))
}

fn texts<const N: usize>(arguments: &[String; N]) -> [&str; N] {
    array::from_fn(|at| arguments[at].as_str())
}

/// How a request has its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// By their names.
    Named,
    /// The same, and teaches the session first.
    Teaching,
    Spelled,
}

/// Those of one table.
#[derive(Debug)]
pub(super) struct Statements {
    /// By their [places](Call::place).
    names: Vec<String>,
    /// What teaches a session those that it lacks, of requests without readers, and of all.
    teaching: [String; 2],
    /// How many requests from now on teach.
    doubted: AtomicUsize,
    cannot_teach: AtomicBool,
}

impl Statements {
    pub(super) fn of(of: &Of<'_>) -> Self {
        let (mut names, mut missing) = (Vec::new(), Vec::new());
        for call in Call::all() {
            let statement = call.spelled(of);
            let name = name(&statement);
            let prepare = format!("PREPARE {name} AS {statement}");
            missing.push(format!("('{name}', {})", Text(&prepare)));
            names.push(name);
        }
        let some = &missing[..Call::WITHOUT_READERS];
        Self {
            names,
            teaching: [teaching(some), teaching(&missing)],
            doubted: AtomicUsize::new(DOUBTED),
            cannot_teach: AtomicBool::new(false),
        }
    }

    /// How a request is sent first.
    pub(super) fn form(&self) -> Form {
        if self.cannot_teach.load(Ordering::Relaxed) {
            return Form::Spelled;
        }
        let doubted = &self.doubted;
        let one_less = |doubted: usize| doubted.checked_sub(1);
        match doubted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less) {
            Ok(_) => Form::Teaching,
            Err(_) => Form::Named,
        }
    }

    /// How a request is sent again that the server has refused with this code, if another form may help.
    pub(super) fn instead(&self, of: Form, code: &str) -> Option<Form> {
        match (of, code) {
            (Form::Named, "26000") => {
                self.doubted.store(DOUBTED, Ordering::Relaxed);
                Some(Form::Teaching)
            }
            // No right to a language, or no language, to teach in; or no such statement.
            (Form::Teaching, "42501" | "42704" | "0A000" | "42601") => Some(Form::Spelled),
            _ => None,
        }
    }

    /// A request has been done in this form, which was not the first.
    pub(super) fn has_helped(&self, form: Form) {
        if form == Form::Spelled {
            self.cannot_teach.store(true, Ordering::Relaxed);
        }
    }

    /// What comes before the statements of a request, which may have such of readers.
    pub(super) fn teaching(&self, form: Form, has_readers: bool) -> &str {
        match form {
            Form::Teaching => &self.teaching[usize::from(has_readers)],
            Form::Named | Form::Spelled => "",
        }
    }

    pub(super) fn write(&self, call: &Call, form: Form, of: &Of<'_>, into: &mut String) {
        match form {
            Form::Spelled => *into += &call.spelled(of),
            Form::Named | Form::Teaching => {
                *into += "EXECUTE ";
                *into += &self.names[call.place()];
                for (at, argument) in call.arguments().iter().enumerate() {
                    *into += if at == 0 { "(" } else { ", " };
                    *into += argument;
                }
                *into += ")";
            }
        }
    }
}

/// What teaches a session those of these that it lacks, each `(name, prepare)`.
fn teaching(statements: &[String]) -> String {
    let statements = statements.join(", ");
    // What the values say is digits: none of it ends the body.
    format!(
        "DO $do$DECLARE lacking text; BEGIN FOR lacking IN SELECT s.prepare FROM (VALUES {statements}) AS s(name, prepare) \
         WHERE NOT EXISTS (SELECT FROM pg_prepared_statements AS p WHERE p.name = s.name) \
         LOOP EXECUTE lacking; END LOOP; END$do$; "
    )
}

/// The name of a statement, which is another where it says anything else.
fn name(statement: &str) -> String {
    let hash = Sha256::digest(statement);
    let mut name = String::from("distributed_lock_");
    for byte in &hash[..16] {
        // A `String` takes whatever is written to it.
        let _ = write!(name, "{byte:02x}");
    }
    name
}
