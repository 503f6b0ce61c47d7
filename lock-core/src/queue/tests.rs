use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::*;

type Line = Queue<u8, &'static str, ()>;

fn enter(queue: &Arc<Line>, impatient: bool) -> Ticket<u8, &'static str, ()> {
    enter_as(queue, LockMode::Exclusive, impatient)
}

fn enter_as(queue: &Arc<Line>, mode: LockMode, impatient: bool) -> Ticket<u8, &'static str, ()> {
    match queue.enter(&1, mode, impatient) {
        Entry::Ticket(ticket, _) => ticket,
        _ => panic!("somebody is in line"),
    }
}

fn first(queue: &Arc<Line>) -> Turn<u8, &'static str, ()> {
    let Ok(turn) = queue.try_enter(&1) else {
        panic!("another is in line");
    };
    turn
}

fn poll(ticket: &mut Ticket<u8, &'static str, ()>) -> Poll<Called<u8, &'static str, ()>> {
    Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn the_line_is_served_in_order_and_past_those_who_left() {
    let queue = Line::new();
    let turn = first(&queue);
    let [mut a, b, mut c] = [(); 3].map(|()| enter(&queue, false));
    assert!(poll(&mut a).is_pending() && poll(&mut c).is_pending());
    drop(b);
    drop(turn);
    assert!(poll(&mut c).is_pending());
    let Poll::Ready(Called::Turn(turn, None)) = poll(&mut a) else {
        panic!("a is next")
    };
    drop(turn);
    assert!(matches!(poll(&mut c), Poll::Ready(Called::Turn(..))));
    assert!(queue.is_empty());
}

#[test]
fn a_grant_goes_past_those_who_left_to_the_next_in_line() {
    let queue = Line::new();
    let turn = first(&queue);
    let (a, mut b) = (enter(&queue, false), enter(&queue, false));
    assert!(turn.hand_on("grant").is_ok());
    drop(a);
    assert!(matches!(
        poll(&mut b),
        Poll::Ready(Called::Turn(_, Some("grant")))
    ));
}

#[test]
fn a_grant_that_nobody_waits_for_comes_back() {
    let queue = Line::new();
    let Err((turn, "grant")) = first(&queue).hand_on("grant") else {
        panic!("nobody is in line")
    };
    assert!(!queue.is_empty());
    drop(turn);
    assert!(queue.is_empty());
}

#[test]
fn the_impatient_wait_for_an_answer_and_not_for_the_holder() {
    let queue = Line::new();
    let turn = first(&queue);
    let (mut impatient, mut patient) = (enter(&queue, true), enter(&queue, false));
    assert!(poll(&mut impatient).is_pending());
    turn.stage(Stage::Holding(()));
    assert!(matches!(poll(&mut impatient), Poll::Ready(Called::Refused)));
    // Those who do not wait learn as well who holds the lock: a hold that is lost is theirs to end.
    assert!(matches!(
        queue.enter(&1, LockMode::Exclusive, true),
        Entry::Refused(Some(()))
    ));
    assert!(matches!(queue.try_enter(&1), Err(Some(()))));
    assert!(poll(&mut patient).is_pending());
    patient.hurry();
    assert!(matches!(poll(&mut patient), Poll::Ready(Called::Refused)));
}

#[test]
fn a_closed_queue_lets_nobody_in_but_those_who_are() {
    let queue = Line::new();
    let turn = first(&queue);
    let mut waits = enter(&queue, false);
    queue.close();
    assert!(matches!(poll(&mut waits), Poll::Ready(Called::Closed)));
    assert!(matches!(
        queue.enter(&2, LockMode::Exclusive, false),
        Entry::Closed
    ));
    assert!(queue.try_enter(&2).is_err());
    turn.stage(Stage::Holding(()));
    assert_eq!(queue.holders().len(), 1);
    drop(turn);
    assert!(queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_grant_is_handed_over_until_its_time_and_not_later() {
    let queue = Line::new();
    let until = Instant::now() + Duration::from_millis(10);
    let (turn, mut a) = (first(&queue), enter(&queue, false));
    assert!(turn.hand_over("grant", until).is_ok());
    let Poll::Ready(Called::Turn(turn, Some("grant"))) = poll(&mut a) else {
        panic!("a is next")
    };
    let mut b = enter(&queue, false);
    tokio::time::advance(Duration::from_millis(10)).await;
    let Err((turn, "grant")) = turn.hand_over("grant", until) else {
        panic!("its time is over")
    };
    assert!(poll(&mut b).is_pending());
    drop(turn);
    assert!(matches!(poll(&mut b), Poll::Ready(Called::Turn(_, None))));
}

#[test]
fn a_grant_that_was_not_taken_is_recalled_when_it_is_due() {
    let queue = Line::new();
    let (turn, mut a) = (first(&queue), enter(&queue, false));
    assert!(turn.hand_on("grant").is_ok());
    assert_eq!(queue.recall(&1, |_| false), None);
    assert_eq!(queue.recall(&1, |_| true), Some("grant"));
    assert_eq!(queue.recall(&1, |_| true), None);
    assert!(matches!(poll(&mut a), Poll::Ready(Called::Turn(_, None))));
    assert!(queue.is_empty());
}

/// The turn of a caller that has become the owner.
fn called(ticket: &mut Ticket<u8, &'static str, ()>) -> Turn<u8, &'static str, ()> {
    match poll(ticket) {
        Poll::Ready(Called::Turn(turn, None)) => turn,
        _ => panic!("it is the next"),
    }
}

fn read(turn: Turn<u8, &'static str, ()>) -> Reading<u8, &'static str, ()> {
    let (reading, next) = turn.read(());
    next.wake();
    reading
}

#[test]
fn a_reader_passes_the_turn_on_and_stays_in_the_line() {
    let queue = Line::new();
    let turn = first(&queue);
    let [mut reader, mut writer, mut behind] =
        [LockMode::Shared, LockMode::Exclusive, LockMode::Shared]
            .map(|mode| enter_as(&queue, mode, false));
    let one = read(turn);
    let other = read(called(&mut reader));
    let turn = called(&mut writer);
    turn.stage(Stage::Waiting);
    assert!(poll(&mut behind).is_pending(), "the writer keeps the turn");
    assert_eq!(turn.readers().len(), 2);
    assert_eq!(behind.awaited_readers().len(), 2);
    drop(one);
    assert_eq!((turn.readers().len(), queue.holders().len()), (1, 1));
    drop(turn);
    drop(read(called(&mut behind)));
    assert!(!queue.is_empty(), "one reads");
    drop(other);
    assert!(queue.is_empty());
}

#[test]
fn while_only_readers_hold_the_next_caller_has_the_turn() {
    let queue = Line::new();
    let reading = read(first(&queue));
    for mode in [LockMode::Shared, LockMode::Exclusive] {
        // It does not wait, and is not refused either: the backend knows.
        let Entry::Turn(turn) = queue.enter(&1, mode, true) else {
            panic!("no caller has the turn");
        };
        assert!(queue.try_enter(&1).is_err());
        drop(turn);
    }
    drop(first(&queue));
    drop(reading);
    assert!(queue.is_empty());
}

#[test]
fn a_writer_that_does_not_wait_takes_no_impatient_reader_with_it() {
    let queue = Line::new();
    let reading = read(first(&queue));
    let Entry::Turn(turn) = queue.enter(&1, LockMode::Exclusive, true) else {
        panic!("no caller has the turn");
    };
    let (mut reader, mut writer) = (
        enter_as(&queue, LockMode::Shared, true),
        enter_as(&queue, LockMode::Exclusive, true),
    );
    turn.refuse_impatient();
    assert!(matches!(poll(&mut writer), Poll::Ready(Called::Refused)));
    assert!(poll(&mut reader).is_pending());
    drop(turn);
    let turn = called(&mut reader);
    let mut behind =
        [LockMode::Shared, LockMode::Exclusive].map(|mode| enter_as(&queue, mode, true));
    // What a reader is refused for is in the way of all.
    turn.refuse_impatient();
    for ticket in &mut behind {
        assert!(matches!(poll(ticket), Poll::Ready(Called::Refused)));
    }
    drop((turn, reading));
    assert!(queue.is_empty());
}

#[test]
fn a_writer_that_waits_refuses_all_who_do_not() {
    let queue = Line::new();
    let reading = read(first(&queue));
    let Entry::Turn(turn) = queue.enter(&1, LockMode::Exclusive, false) else {
        panic!("no caller has the turn");
    };
    let mut reader = enter_as(&queue, LockMode::Shared, true);
    turn.stage(Stage::Waiting);
    assert!(matches!(poll(&mut reader), Poll::Ready(Called::Refused)));
    assert!(matches!(
        queue.enter(&1, LockMode::Shared, true),
        Entry::Refused(None)
    ));
    drop((turn, reading));
    assert!(queue.is_empty());
}

#[test]
fn who_is_next_in_line_says_how_it_would_hold() {
    let queue = Line::new();
    let turn = first(&queue);
    assert!(!turn.is_awaited_as(LockMode::Shared) && !turn.is_awaited_as(LockMode::Exclusive));
    let (_reader, _writer) = (
        enter_as(&queue, LockMode::Shared, false),
        enter_as(&queue, LockMode::Exclusive, false),
    );
    assert!(turn.is_awaited_as(LockMode::Shared) && !turn.is_awaited_as(LockMode::Exclusive));
}

#[tokio::test]
async fn a_closed_queue_is_emptied_by_its_last_reader() {
    let queue = Line::new();
    let [one, other] = [(); 2].map(|()| read(first(&queue)));
    queue.close();
    drop(one);
    let mut emptied = std::pin::pin!(queue.emptied());
    assert!(futures_poll(emptied.as_mut()).is_pending());
    drop(other);
    emptied.await;
}

fn futures_poll(future: Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
