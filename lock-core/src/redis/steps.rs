//! Channels that are to be subscribed to, or to be left, over one connection: how many at a time.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::Arc;

use super::key::Key;
use super::waiting::Asked;

/// How many channels are asked for before the first is answered.
const MANY: usize = 512;

/// The same after a connection was lost meanwhile. A server ends a connection whose answers are more
/// than its `client-output-buffer-limit` for subscribers: these few are 6 KB at most. There may have been another
/// reason: they are twice as many each time that so many were answered and nothing is left to do.
const FEW: usize = 32;

/// What is asked over a connection at one time.
pub(super) enum Step {
    Subscribe(Asked),
    Leave(Vec<Key>),
}

/// What one connection has to do. Another connection to the same node goes on with it.
pub(super) struct Steps {
    queue: VecDeque<Step>,
    /// How many channels are asked for and not answered.
    open: usize,
    most: usize,
    /// Whether `most` were open since `most` was last decided about.
    was_full: bool,
    /// Channels that the server has not said yet it does not send to us any more.
    leaving: HashMap<Arc<str>, usize>,
}

impl Default for Steps {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            open: 0,
            most: MANY,
            was_full: false,
            leaving: HashMap::new(),
        }
    }
}

impl Step {
    pub(super) fn keys(&self) -> &[Key] {
        match self {
            Self::Subscribe(asked) => &asked.keys,
            Self::Leave(keys) => keys,
        }
    }
}

impl Steps {
    /// To be subscribed to, as they were given out at this time.
    pub(super) fn subscribe(&mut self, keys: &[Key], number: u64) {
        for keys in keys.chunks(self.most) {
            let keys = keys.to_vec();
            self.queue
                .push_back(Step::Subscribe(Asked { keys, number }));
        }
    }

    pub(super) fn leave(&mut self, keys: &[Key]) {
        for keys in keys.chunks(self.most) {
            self.queue.push_back(Step::Leave(keys.to_vec()));
        }
    }

    /// What can be asked now.
    pub(super) fn next(&mut self) -> Option<Step> {
        let room = self.most.saturating_sub(self.open);
        let step = (self.queue).pop_front_if(|step| step.keys().len() <= room)?;
        self.open += step.keys().len();
        self.was_full |= self.open >= self.most;
        if let Step::Leave(keys) = &step {
            for key in keys {
                *self.leaving.entry(Arc::clone(&key.text)).or_default() += 1;
            }
        }
        Some(step)
    }

    /// So many channels are answered.
    pub(super) fn answered(&mut self, count: usize) {
        self.open = self.open.saturating_sub(count);
        if self.open == 0 && self.queue.is_empty() && mem::take(&mut self.was_full) {
            self.most = (2 * self.most).min(MANY);
        }
    }

    /// The server says that it does not send messages of this channel any more. Tells whether that is the
    /// answer to a question of ours.
    pub(super) fn has_left(&mut self, channel: &str) -> bool {
        let Some(count) = self.leaving.get_mut(channel) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            self.leaving.remove(channel);
        }
        true
    }

    /// The connection is gone, and its subscriptions with it.
    pub(super) fn lost(&mut self) {
        if self.open > FEW {
            self.most = FEW;
        }
        self.queue.clear();
        self.open = 0;
        self.was_full = false;
        self.leaving.clear();
    }
}

#[cfg(all(test, not(lock_model)))]
mod tests {
    use super::*;

    fn keys(count: usize) -> Vec<Key> {
        let key = |id| Key {
            text: format!("lock:{{b7}}:v1-{id}").into(),
            bucket: 7,
        };
        (0..count).map(key).collect()
    }

    fn sizes(steps: &mut Steps) -> Vec<usize> {
        std::iter::from_fn(|| Some(steps.next()?.keys().len())).collect()
    }

    #[test]
    fn no_more_than_so_many_channels_are_asked_for_before_they_are_answered() {
        let mut steps = Steps::default();
        steps.subscribe(&keys(1_100), 1);
        steps.leave(&keys(10));
        assert_eq!(sizes(&mut steps), [512]);
        steps.answered(512);
        assert_eq!(sizes(&mut steps), [512]);
        steps.answered(512);
        assert_eq!(sizes(&mut steps), [76, 10]);
    }

    #[test]
    fn fewer_are_asked_for_after_a_connection_was_lost_with_many_unanswered() {
        let mut steps = Steps::default();
        steps.subscribe(&keys(20), 1);
        assert_eq!(sizes(&mut steps), [20]);
        steps.lost();
        steps.subscribe(&keys(100), 2);
        assert_eq!(sizes(&mut steps), [100], "those few were not why");
        steps.lost();
        steps.subscribe(&keys(100), 3);
        assert_eq!(sizes(&mut steps), [32]);
    }

    /// Asks for so many channels, each when there is room for it; gives how many were open at most.
    fn most_of(steps: &mut Steps, count: usize) -> usize {
        steps.subscribe(&keys(count), 1);
        let mut most = 0;
        loop {
            let open: usize = sizes(steps).iter().sum();
            if open == 0 {
                return most;
            }
            most = most.max(open);
            steps.answered(open);
        }
    }

    #[test]
    fn more_are_asked_for_again_when_as_many_as_may_be_were_answered() {
        let mut steps = Steps::default();
        steps.subscribe(&keys(100), 1);
        assert_eq!(sizes(&mut steps), [100]);
        steps.lost();
        for _ in 0..10 {
            assert_eq!(most_of(&mut steps, 20), 20, "that says nothing of more");
        }
        for most in [32, 64, 128, 256, 512, 512] {
            assert_eq!(most_of(&mut steps, 1_100), most);
        }
    }

    #[test]
    fn a_channel_that_the_server_left_unasked_is_told_from_one_that_was_to_be_left() {
        let mut steps = Steps::default();
        steps.leave(&keys(1));
        let step = steps.next().unwrap();
        let channel = &step.keys()[0].text;
        assert!(steps.has_left(channel));
        assert!(!steps.has_left(channel));
    }
}
