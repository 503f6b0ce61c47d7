//! The queue under every interleaving of loom. The names begin with `model_`: they are run alone.

use std::sync::Arc;

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use loom::thread;

use super::{Called, Entry, Stage};

type Queue = super::Queue<&'static str, Gift, ()>;
type Turn = super::Turn<&'static str, Gift, ()>;
type Ticket = super::Ticket<&'static str, Gift, ()>;

const KEY: &str = "order:process:1";

/// A grant that counts how often it was given back.
struct Gift(Arc<AtomicUsize>);

impl Drop for Gift {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn first(queue: &Arc<Queue>) -> Turn {
    match queue.enter(&KEY, false) {
        Entry::Turn(turn) => turn,
        _ => panic!("the line was empty"),
    }
}

fn ticket(queue: &Arc<Queue>, impatient: bool) -> Ticket {
    match queue.enter(&KEY, impatient) {
        Entry::Ticket(ticket, _) => ticket,
        _ => panic!("somebody was in line"),
    }
}

/// Two at most: loom gives up on threads beyond a few.
fn pass_through(queue: &Arc<Queue>, inside: &AtomicUsize) {
    let turn = match queue.enter(&KEY, false) {
        Entry::Turn(turn) => turn,
        Entry::Ticket(ticket, _) => match block_on(ticket) {
            Called::Turn(turn, None) => turn,
            _ => panic!("nobody gave, refused or closed"),
        },
        _ => panic!("nobody refused or closed"),
    };
    assert_eq!(inside.fetch_add(1, SeqCst), 0, "two have the turn");
    turn.stage(Stage::Holding(()));
    inside.fetch_sub(1, SeqCst);
}

#[test]
fn model_one_at_a_time_and_nobody_is_forgotten() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (queue, inside) = (Queue::new(), Arc::new(AtomicUsize::new(0)));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (queue, inside) = (Arc::clone(&queue), Arc::clone(&inside));
                thread::spawn(move || pass_through(&queue, &inside))
            })
            .collect();
        pass_through(&queue, &inside);
        for other in others {
            other.join().unwrap();
        }
        assert!(queue.is_empty());
    });
}

#[test]
fn model_a_turn_passed_to_one_who_leaves_goes_on() {
    loom::model(|| {
        let queue = Queue::new();
        let turn = first(&queue);
        let leaves = ticket(&queue, false);
        let stays = ticket(&queue, false);
        let passing = thread::spawn(move || drop(turn));
        let leaving = thread::spawn(move || drop(leaves));
        assert!(matches!(block_on(stays), Called::Turn(_, None)));
        passing.join().unwrap();
        leaving.join().unwrap();
        assert!(queue.is_empty());
    });
}

#[test]
fn model_a_gift_is_received_or_given_back_once() {
    loom::model(|| {
        let (queue, given_back) = (Queue::new(), Arc::new(AtomicUsize::new(0)));
        let turn = first(&queue);
        let leaves = ticket(&queue, false);
        let gift = Gift(Arc::clone(&given_back));
        let passing = thread::spawn(move || drop(turn.hand_on(gift)));
        drop(leaves);
        passing.join().unwrap();
        assert_eq!(given_back.load(SeqCst), 1);
        assert!(queue.is_empty());
    });
}

#[test]
fn model_who_hurries_hears_that_the_lock_is_held() {
    loom::model(|| {
        let queue = Queue::new();
        let turn = first(&queue);
        let waits = ticket(&queue, false);
        let holding = thread::spawn(move || {
            turn.stage(Stage::Holding(()));
            turn
        });
        waits.hurry();
        assert!(matches!(block_on(waits), Called::Refused));
        drop(holding.join().unwrap());
        assert!(queue.is_empty());
    });
}

#[test]
fn model_who_hurries_hears_that_it_is_their_turn() {
    loom::model(|| {
        let queue = Queue::new();
        let turn = first(&queue);
        let waits = ticket(&queue, true);
        let leaving = thread::spawn(move || drop(turn));
        assert!(matches!(block_on(waits), Called::Turn(_, None)));
        leaving.join().unwrap();
        assert!(queue.is_empty());
    });
}

#[test]
fn model_a_closed_queue_sends_everybody_away() {
    loom::model(|| {
        let queue = Queue::new();
        let turn = first(&queue);
        let waits = ticket(&queue, false);
        let closer = Arc::clone(&queue);
        let closing = thread::spawn(move || closer.close());
        let leaving = thread::spawn(move || drop(turn));
        // Called by the one or sent away by the other, but told.
        drop(block_on(waits));
        closing.join().unwrap();
        leaving.join().unwrap();
        assert!(queue.is_empty());
        assert!(matches!(queue.enter(&KEY, false), Entry::Closed));
    });
}
