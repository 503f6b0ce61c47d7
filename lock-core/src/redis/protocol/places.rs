//! Places before readers that are asked for and not answered yet.
//!
//! A writer that waits asks for its place with each try, and knows from the answer whether it has one. Where the answer
//! is lost it may have one that no process knows of, under the number of a connection that is gone: readers would be
//! kept out for a lease. So such a place is given back, and once more when the server cannot take the lost try any
//! more. The next try asks for another, over another connection.

use std::mem;
use std::sync::Arc;

use crate::redis::command::Acquire;
use crate::redis::key::Key;
use crate::redis::shared::Shared;
use crate::server::PATIENCE;
use crate::server::leased::Part;

/// Those that one exchange asks for. Dropped without an answer, they are given back.
pub(super) struct Asked {
    shared: Arc<Shared>,
    /// Of the acquires of those that wait, readers as well, in order.
    positions: Vec<usize>,
    places: Vec<(Key, u64)>,
}

impl Asked {
    /// Those that these acquires, which are about to be sent, ask for: of writers that wait.
    pub(super) fn by(shared: &Arc<Shared>, acquires: &[Acquire]) -> Self {
        let mut asked = Self {
            shared: Arc::clone(shared),
            positions: Vec::new(),
            places: Vec::new(),
        };
        for (position, acquire) in acquires.iter().enumerate() {
            match acquire.part {
                Part::Whole if shared.waiting.has_writers(&acquire.key) => {
                    asked.positions.push(position);
                    let connection = acquire.owner.connection;
                    asked.places.push((acquire.key.clone(), connection));
                }
                Part::Share if shared.waiting.has_readers(&acquire.key) => {
                    asked.positions.push(position);
                }
                _ => {}
            }
        }
        asked
    }

    /// Which of the acquires are of clients that wait.
    pub(super) fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// The answer says which of them there are, or the server has done nothing.
    pub(super) fn are_answered(mut self) {
        self.places.clear();
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let until = self.shared.clock.now() + PATIENCE;
        for (key, connection) in mem::take(&mut self.places) {
            self.shared.give_back_place(key, connection, Some(until));
        }
    }
}
