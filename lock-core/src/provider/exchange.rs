//! One question to the backend, which is asked to the end also when its caller has left.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout;

use super::Turn;
use crate::LockError;
use crate::backend::{Attempt, Begun, Command, Granted};
use crate::guard::hand_on;

type Answer = Result<Attempt<Granted>, LockError>;

/// A command and the turn that it is asked in.
///
/// The turn travels with the command: no other caller can ask for this name before the answer is in.
/// Dropped before that, both go on in a task of their own, which hands a grant that is not awaited
/// to the next in line, or back. Where no runtime is left to run it, the command is dropped, and
/// after it the turn: a backend gives back what is granted to a dropped command.
pub(super) struct Exchange {
    state: State,
    response_timeout: Duration,
}

enum State {
    Ready(Turn, Answer),
    Pending(Command, Turn),
    Done,
}

impl Exchange {
    pub(super) fn new(turn: Turn, begun: Begun, response_timeout: Duration) -> Self {
        let state = match begun {
            Begun::Ready(answer) => State::Ready(turn, answer),
            Begun::Pending(command) => State::Pending(command, turn),
        };
        Self {
            state,
            response_timeout,
        }
    }
}

impl Future for Exchange {
    type Output = (Turn, Answer);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Ready(turn, answer) => Poll::Ready((turn, answer)),
            State::Pending(mut command, turn) => match command.as_mut().poll(cx) {
                Poll::Ready(answer) => Poll::Ready((turn, answer)),
                Poll::Pending => {
                    self.state = State::Pending(command, turn);
                    Poll::Pending
                }
            },
            State::Done => Poll::Pending,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Pending(command, turn) => {
                detach(Orphan { command, turn }.settle(self.response_timeout));
            }
            // Unpolled, which the next poll would have taken: the grant goes back, then the turn.
            State::Ready(turn, answer) => {
                drop(answer);
                drop(turn);
            }
            State::Done => {}
        }
    }
}

/// A question whose caller has left. Unpolled, it is dropped field by field: the command first.
struct Orphan {
    command: Command,
    turn: Turn,
}

impl Orphan {
    async fn settle(mut self, response_timeout: Duration) {
        let answer = (&mut self.command).await;
        if let Ok(Attempt::Granted(granted)) = answer {
            settle(granted, self.turn, response_timeout).await;
        }
    }
}

/// Hands on what is not awaited, or gives it back before another caller is woken. Unpolled, it drops its
/// arguments in the same order.
pub(super) async fn settle(granted: Granted, turn: Turn, response_timeout: Duration) {
    if let Err((turn, granted)) = hand_on(turn, granted) {
        if let Some(release) = granted.slot().release() {
            // The caller has left; unanswered, it goes on by itself.
            let _ = timeout(response_timeout, release).await;
        }
        drop(turn);
    }
}

/// Runs a future to its end without a task that waits for it; drops it where there is no runtime.
pub(super) fn detach(future: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(future);
    }
}
