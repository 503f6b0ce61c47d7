//! The queue under every interleaving of loom. The names begin with `model_`: they are run alone.

use std::sync::Arc;

use loom::future::block_on;
use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use loom::thread;

use tokio::time::{Duration, Instant};

use super::{Called, Entry, Stage};
use crate::LockMode;

type Queue = super::Queue<&'static str, Gift, ()>;
type Turn = super::Turn<&'static str, Gift, ()>;
type Ticket = super::Ticket<&'static str, Gift, ()>;

const KEY: &str = "order:process:1";

/// A grant that counts how often it was given back.
struct Gift(Arc<AtomicUsize>);

/// A time that does not come while a model runs.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

impl Drop for Gift {
    fn drop(&mut self) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn first(queue: &Arc<Queue>) -> Turn {
    match queue.enter(&KEY, LockMode::Exclusive, false) {
        Entry::Turn(turn) => turn,
        _ => panic!("the line was empty"),
    }
}

fn ticket(queue: &Arc<Queue>, impatient: bool) -> Ticket {
    match queue.enter(&KEY, LockMode::Exclusive, impatient) {
        Entry::Ticket(ticket, _) => ticket,
        _ => panic!("somebody was in line"),
    }
}

/// Two at most: loom gives up on threads beyond a few.
fn pass_through(queue: &Arc<Queue>, inside: &AtomicUsize) {
    let turn = match queue.enter(&KEY, LockMode::Exclusive, false) {
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
        assert!(matches!(
            queue.enter(&KEY, LockMode::Exclusive, false),
            Entry::Closed
        ));
    });
}

/// Holds a grant of the server, a new one or the one that was handed over, and hands it over.
fn hold_and_hand_over(queue: &Arc<Queue>, granted: &AtomicUsize, back: &Arc<AtomicUsize>) {
    let ask = || {
        let before = granted.fetch_add(1, SeqCst);
        assert_eq!(before, back.load(SeqCst), "asked for what is held here");
        Gift(Arc::clone(back))
    };
    let (turn, gift) = match queue.enter(&KEY, LockMode::Exclusive, false) {
        Entry::Turn(turn) => (turn, None),
        Entry::Ticket(ticket, _) => match block_on(ticket) {
            Called::Turn(turn, gift) => (turn, gift),
            _ => panic!("nobody refused or closed"),
        },
        _ => panic!("nobody refused or closed"),
    };
    let gift = gift.unwrap_or_else(ask);
    turn.stage(Stage::Holding(()));
    if let Err((turn, gift)) = turn.hand_over(gift, later()) {
        drop(gift);
        drop(turn);
    }
}

#[test]
fn model_what_is_handed_over_has_one_holder_and_comes_back_once() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (granted, back) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let queue = Queue::new();
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (queue, granted, back) =
                    (Arc::clone(&queue), Arc::clone(&granted), Arc::clone(&back));
                thread::spawn(move || hold_and_hand_over(&queue, &granted, &back))
            })
            .collect();
        hold_and_hand_over(&queue, &granted, &back);
        for other in others {
            other.join().unwrap();
        }
        assert!(queue.is_empty());
        assert_eq!(granted.load(SeqCst), back.load(SeqCst));
    });
}

#[test]
fn model_what_is_handed_over_is_received_or_recalled_once() {
    loom::model(|| {
        let (queue, given_back) = (Queue::new(), Arc::new(AtomicUsize::new(0)));
        let turn = first(&queue);
        let waits = ticket(&queue, false);
        let gift = Gift(Arc::clone(&given_back));
        let giving = thread::spawn(move || drop(turn.hand_over(gift, later())));
        let recaller = Arc::clone(&queue);
        let recalling = thread::spawn(move || drop(recaller.recall(&KEY, |_| true)));
        let Called::Turn(turn, gift) = block_on(waits) else {
            panic!("nobody refused or closed");
        };
        // Without the gift the owner asks for itself; either way the turn is its own.
        let is_received = gift.is_some();
        drop(gift);
        giving.join().unwrap();
        recalling.join().unwrap();
        assert_eq!(given_back.load(SeqCst), 1, "received: {is_received}");
        drop(turn);
        assert!(queue.is_empty());
    });
}

#[test]
fn model_what_is_handed_over_to_one_who_leaves_is_given_back_once() {
    loom::model(|| {
        let (queue, given_back) = (Queue::new(), Arc::new(AtomicUsize::new(0)));
        let turn = first(&queue);
        let leaves = ticket(&queue, false);
        let gift = Gift(Arc::clone(&given_back));
        let giving = thread::spawn(move || drop(turn.hand_over(gift, later())));
        let recaller = Arc::clone(&queue);
        let recalling = thread::spawn(move || drop(recaller.recall(&KEY, |_| true)));
        drop(leaves);
        giving.join().unwrap();
        recalling.join().unwrap();
        assert_eq!(given_back.load(SeqCst), 1);
        assert!(queue.is_empty());
    });
}

/// Enters, and gives the turn that it is called with.
fn turn_as(queue: &Arc<Queue>, mode: LockMode) -> Turn {
    match queue.enter(&KEY, mode, false) {
        Entry::Turn(turn) => turn,
        Entry::Ticket(ticket, _) => match block_on(ticket) {
            Called::Turn(turn, None) => turn,
            _ => panic!("nobody gave, refused or closed"),
        },
        _ => panic!("nobody refused or closed"),
    }
}

/// Reads: alone in asking, and together with others in holding.
fn read_through(queue: &Arc<Queue>, asking: &AtomicUsize) {
    let turn = turn_as(queue, LockMode::Shared);
    assert_eq!(asking.fetch_add(1, SeqCst), 0, "two have the turn");
    asking.fetch_sub(1, SeqCst);
    let (reading, next) = turn.read(());
    next.wake();
    assert!(!queue.is_empty(), "one reads");
    drop(reading);
}

#[test]
fn model_readers_ask_one_by_one_and_the_line_ends_with_the_last() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (queue, asking) = (Queue::new(), Arc::new(AtomicUsize::new(0)));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (queue, asking) = (Arc::clone(&queue), Arc::clone(&asking));
                thread::spawn(move || read_through(&queue, &asking))
            })
            .collect();
        read_through(&queue, &asking);
        for other in others {
            other.join().unwrap();
        }
        assert!(queue.is_empty());
    });
}

#[test]
fn model_a_writer_among_readers_has_the_turn_alone_and_nobody_is_forgotten() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (queue, asking) = (Queue::new(), Arc::new(AtomicUsize::new(0)));
        let reader = {
            let (queue, asking) = (Arc::clone(&queue), Arc::clone(&asking));
            thread::spawn(move || read_through(&queue, &asking))
        };
        let writer = {
            let (queue, asking) = (Arc::clone(&queue), Arc::clone(&asking));
            thread::spawn(move || pass_through(&queue, &asking))
        };
        read_through(&queue, &asking);
        reader.join().unwrap();
        writer.join().unwrap();
        assert!(queue.is_empty());
    });
}

#[test]
fn model_a_turn_that_a_reader_passes_to_one_who_leaves_goes_on() {
    loom::model(|| {
        let queue = Queue::new();
        let turn = first(&queue);
        let leaves = ticket(&queue, false);
        let stays = ticket(&queue, false);
        let reading = thread::spawn(move || {
            let (reading, next) = turn.read(());
            next.wake();
            reading
        });
        let leaving = thread::spawn(move || drop(leaves));
        let Called::Turn(writer, _) = block_on(stays) else {
            panic!("nobody refused or closed");
        };
        leaving.join().unwrap();
        let reading = reading.join().unwrap();
        assert_eq!(writer.readers().len(), 1);
        drop(writer);
        assert!(!queue.is_empty(), "one reads");
        drop(reading);
        assert!(queue.is_empty());
    });
}

#[test]
fn model_a_line_that_its_last_reader_leaves_is_there_for_who_enters() {
    loom::model(|| {
        let queue = Queue::new();
        let (reading, next) = first(&queue).read(());
        next.wake();
        let leaving = thread::spawn(move || drop(reading));
        let turn = turn_as(&queue, LockMode::Exclusive);
        assert!(queue.try_enter(&KEY).is_err(), "two have the turn");
        leaving.join().unwrap();
        assert!(queue.try_enter(&KEY).is_err(), "two have the turn");
        drop(turn);
        assert!(queue.is_empty());
    });
}

#[test]
fn model_a_reader_that_was_handed_a_grant_passes_the_turn_on() {
    loom::model(|| {
        let (queue, given_back) = (Queue::new(), Arc::new(AtomicUsize::new(0)));
        let turn = first(&queue);
        let Entry::Ticket(reads, _) = queue.enter(&KEY, LockMode::Shared, false) else {
            panic!("somebody was in line");
        };
        let waits = ticket(&queue, false);
        let gift = Gift(Arc::clone(&given_back));
        let giving = thread::spawn(move || drop(turn.hand_on(gift)));
        let Called::Turn(turn, Some(gift)) = block_on(reads) else {
            panic!("it was handed over");
        };
        let (reading, next) = turn.read(());
        next.wake();
        let leaving = thread::spawn(move || drop((gift, reading)));
        let Called::Turn(turn, None) = block_on(waits) else {
            panic!("nobody gave, refused or closed");
        };
        giving.join().unwrap();
        leaving.join().unwrap();
        assert_eq!(given_back.load(SeqCst), 1);
        assert!(turn.readers().is_empty());
        drop(turn);
        assert!(queue.is_empty());
    });
}
