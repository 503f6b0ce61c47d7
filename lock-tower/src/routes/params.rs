//! Where the parameters of templates come from, and which entries each is for.
//!
//! A source that an entry does not take would make another lock than the one that is meant, and no request
//! would show it. So the order of the calls does not matter for a name that is given once, and a source that
//! no entry takes is a mistake.

use http::request::Parts;
use lock_core::LockError;

use crate::name::{Naming, Param};
use crate::rule::{Choice, Rules};

/// The last source that was given for each name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Vec<Given>);

#[derive(Clone, Debug)]
struct Given {
    param: Param,
    /// Whether an entry takes it.
    is_taken: bool,
}

impl Params {
    /// Adds a source for the entries to come, and for those of these that have none for its name. It takes
    /// the place of an earlier one of that name, which the entries before it keep.
    pub(super) fn give<'a>(&mut self, param: Param, entries: impl Iterator<Item = &'a mut Naming>) {
        let mut is_taken = false;
        for naming in entries.filter(|naming| naming.lacks(&param)) {
            naming.add_param(param.clone());
            is_taken = true;
        }
        self.0.retain(|given| given.param.name() != param.name());
        self.0.push(Given { param, is_taken });
    }

    /// Gives a new entry the sources of what its template names.
    pub(super) fn take(&mut self, naming: &mut Naming) {
        for given in &mut self.0 {
            if naming.lacks(&given.param) {
                naming.add_param(given.param.clone());
                given.is_taken = true;
            }
        }
    }

    /// The mistake of a source that no entry takes.
    pub(super) fn mistake(&self) -> Option<LockError> {
        let unused = self.0.iter().find(|given| !given.is_taken)?;
        Some(LockError::misconfigured(format!(
            "`.param(\"{}\", ..)` or `.param_as` of the `RouteLocks` is for no entry: no template names it, or \
             those that do have an earlier one of that name; spell it as the templates do, or call it before the \
             entries that it is for",
            unused.param.name()
        )))
    }
}

/// The rules of routes whose locks are known: every request is refused where there is a mistake.
impl Rules for Params {
    fn choose(&self, _: &Parts) -> Choice<'_> {
        self.mistake().map_or(Choice::Pass, Choice::Mistake)
    }
}
