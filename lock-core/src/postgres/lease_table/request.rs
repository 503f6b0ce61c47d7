//! A request: statements that are sent together, as one transaction.

use std::time::Duration;

use super::key::RowKey;
use super::literal::array;
use super::mark::RowMark;
use super::setup::Table;
use super::sql::{BEGIN, Of};
use super::statements::{Call, Form};

/// A request to the table. Its answer repeats its number.
#[derive(Clone, Debug)]
pub struct Request {
    pub(super) number: i64,
    pub(super) table: Table,
    /// Before the head.
    pub(super) note: String,
    /// After it.
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Frequent(Box<Call>),
    /// With the semicolon before it.
    Other(String),
}

impl Step {
    pub(super) fn frequent(call: Call) -> Self {
        Self::Frequent(Box::new(call))
    }
}

impl Request {
    /// The statements, which are one transaction.
    pub(super) fn text(&self, form: Form) -> String {
        let (of, statements) = (self.table.of(), self.table.statements());
        let is_of_readers =
            |step: &Step| matches!(step, Step::Frequent(call) if call.is_of_readers());
        let teaching = statements.teaching(form, self.steps.iter().any(is_of_readers));
        let mut text = format!("{BEGIN}{teaching}{}", self.note);
        let head = Call::Head([self.number.to_string()]);
        statements.write(&head, form, &of, &mut text);
        for step in &self.steps {
            match step {
                Step::Frequent(call) => {
                    text += "; ";
                    statements.write(call, form, &of, &mut text);
                }
                Step::Other(other) => text += other,
            }
        }
        text
    }
}

impl Table {
    pub(super) fn request<const N: usize>(&self, number: i64, steps: [Step; N]) -> Request {
        Request {
            number,
            table: self.clone(),
            note: String::new(),
            steps: steps.into(),
        }
    }

    /// A request that looks which of these are free, or will be so soon.
    #[must_use]
    pub fn look(&self, number: i64, keys: &[RowKey], soon: Duration) -> Request {
        let call = Call::Look([array(keys), milliseconds(soon).to_string()]);
        self.request(number, [Step::frequent(call)])
    }

    /// A request that looks who holds these.
    #[must_use]
    pub fn who_holds(&self, number: i64, keys: &[RowKey]) -> Request {
        let looking = self.of().who_holds(&array(keys));
        self.request(number, [Step::Other(looking)])
    }

    /// A request that leaves the mark of this process, or keeps it, and looks for marks of other providers.
    pub(super) fn mark(&self, number: i64, mark: &RowMark, holder: &str) -> Request {
        let marking = (self.of()).mark(mark.key(), mark.namespace(), holder, RowMark::LASTS);
        let looking = Of::marks_of_others(&mark.others());
        self.request(number, [Step::Other(marking), Step::Other(looking)])
    }

    /// A request that notifies those who listen to this channel.
    pub(super) fn notify(&self, number: i64, channel: &str) -> Request {
        self.request(number, [Step::Other(Of::notify(channel))])
    }

    /// A request that withdraws the mark of this process.
    pub(super) fn unmark(&self, number: i64, mark: &RowMark) -> Request {
        let withdrawing = self.of().unmark(mark.key());
        self.request(number, [Step::Other(withdrawing)])
    }

    /// A request that removes rows that were free for long.
    #[must_use]
    pub fn sweep(&self, number: i64) -> Request {
        let removing = self.of().sweep();
        self.request(number, [Step::Other(removing)])
    }
}

/// Whole milliseconds, the last one begun.
pub(super) fn milliseconds(duration: Duration) -> i32 {
    let whole = duration.as_micros().div_ceil(1_000);
    i32::try_from(whole).unwrap_or(i32::MAX)
}
