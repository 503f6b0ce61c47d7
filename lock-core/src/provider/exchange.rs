//! One question to the backend, which is asked to the end also when whoever asked has left.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::Turn;
use crate::LockError;
use crate::backend::{Attempt, Begun, Command, Granted};

type Answer = Result<Attempt<Granted>, LockError>;

/// A command and the turn that it is asked in.
///
/// The turn travels with the command: nobody else can ask for this name before the answer is in.
/// Dropped before that, both go on in a task of their own, which hands a grant that nobody awaits
/// to the next in line, or back. Where no runtime is left to run it, the command is dropped, and
/// after it the turn: a backend gives back what is granted to a dropped command.
pub(super) struct Exchange(State);

enum State {
    Ready(Turn, Answer),
    Pending(Command, Turn),
    Done,
}

impl Exchange {
    pub(super) fn new(turn: Turn, begun: Begun) -> Self {
        Self(match begun {
            Begun::Ready(answer) => State::Ready(turn, answer),
            Begun::Pending(command) => State::Pending(command, turn),
        })
    }
}

impl Future for Exchange {
    type Output = (Turn, Answer);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.0, State::Done) {
            State::Ready(turn, answer) => Poll::Ready((turn, answer)),
            State::Pending(mut command, turn) => match command.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready((turn, answer)),
                Poll::Pending => {
                    self.0 = State::Pending(command, turn);
                    Poll::Pending
                }
            },
            State::Done => Poll::Pending,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.0, State::Done) {
            State::Pending(command, turn) => detach(Orphan { command, turn }.settle()),
            State::Ready(turn, answer) => settle(turn, answer),
            State::Done => {}
        }
    }
}

/// A question that nobody awaits. Unpolled, it is dropped field by field: the command first.
struct Orphan {
    command: Command,
    turn: Turn,
}

impl Orphan {
    async fn settle(mut self) {
        let answer = (&mut self.command).await;
        settle(self.turn, answer);
    }
}

/// Hands on what nobody awaits.
fn settle(turn: Turn, answer: Answer) {
    if let Ok(Attempt::Granted(granted)) = answer {
        // Nobody in line: it comes back, and the drop releases it.
        drop(turn.pass(granted));
    }
}

/// Runs a future to its end without anybody who waits for it; drops it where there is no runtime.
pub(super) fn detach(future: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(future);
    }
}
