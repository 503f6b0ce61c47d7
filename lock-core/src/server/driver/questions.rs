//! Who holds a lock: asked of the server, beside what is granted and renewed.

use std::time::Duration;

use super::Driver;
use crate::LockError;
use crate::server::leased::{Command, WhoHolds};
use crate::server::protocol::{Ended, Protocol, Sent, Told};

/// Before a question is asked again that had no answer, or no connection.
const AGAIN: Duration = Duration::from_millis(10);

impl<P: Protocol> Driver<P> {
    /// Asks what is to be asked.
    pub(super) fn ask_holders(&mut self) {
        let now = self.users.clock.now();
        let mut waiting = self.pending.take_questions();
        waiting.retain(|question| !question.reply.is_closed());
        for question in waiting.extract_if(.., |question| question.until <= now) {
            let _ = question.reply.send(Err(LockError::unanswered()));
        }
        while let Some(first) = waiting.first() {
            let lane = self.protocol.lane_of(&first.key);
            let is_of_lane =
                |question: &mut WhoHolds<P::Key>| self.protocol.lane_of(&question.key) == lane;
            let together = waiting.extract_if(.., is_of_lane).take(P::BATCH);
            let together = together.collect();
            self.ask_together(lane, together);
        }
    }

    fn ask_together(&mut self, lane: usize, questions: Vec<WhoHolds<P::Key>>) {
        let Some((connection, sent)) = self.connection(lane) else {
            return self.ask_again(questions);
        };
        let asking = self.protocol.ask_holders(connection, sent, &questions);
        self.calls.push(Box::pin(async move {
            let answer = asking.await;
            Ended::Told {
                sent,
                questions,
                answer,
            }
        }));
    }

    fn ask_again(&mut self, questions: impl IntoIterator<Item = WhoHolds<P::Key>>) {
        for question in questions {
            self.pending.delay(AGAIN, Command::WhoHolds(question));
        }
    }

    pub(super) fn told(
        &mut self,
        sent: Sent,
        questions: Vec<WhoHolds<P::Key>>,
        answer: Result<P::Told, P::Failure>,
    ) {
        let Self {
            protocol, effects, ..
        } = self;
        let mut told = protocol.told(sent, &questions, answer, effects).into_iter();
        for question in questions {
            match told.next().unwrap_or(Told::Again) {
                // The caller may have left.
                Told::Holder(holder) => drop(question.reply.send(Ok(holder))),
                Told::Failed(error) => drop(question.reply.send(Err(error))),
                Told::Again => self.ask_again([question]),
            }
        }
    }
}
