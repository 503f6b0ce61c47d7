//! What faults do to clients: losses, what is freed, what is healed.

use super::super::{Cost, Fate, FaultRule};
use super::*;

const LEASE: Duration = ms(1_000);

/// Killed, frozen past the lease, dropped by the server, or cut off.
fn rules() -> Rules {
    let mut cut = FaultRule::harmless().may_cost_locks();
    cut.granted_within = Some(ms(2_000));
    plain()
        .lease(Some(LEASE))
        .fault("kill", FaultRule::kill(ms(100)))
        .fault("freeze", FaultRule::freeze(Some(LEASE)))
        .fault("terminate", FaultRule::dropped_by_the_server(ms(50)))
        .fault("cut", cut)
        .fault("slow", FaultRule::harmless())
}

const HELD: &str = "0 a/1 acquire invoke\n 1 a/1 acquire ok\n";

fn held(then: &str) -> String {
    HELD.to_owned() + then
}

const NEXT: &str =
    "\n 20 b/1 acquire invoke\n 60 b/1 acquire ok\n 70 b/1 release invoke\n 70 b/1 release ok";

#[test]
fn a_killed_holder_is_not_inside_any_more() {
    let killed = "50 a/kill fault invoke\n 51 a/kill fault ok";
    let verdict = is_clean(&(held(killed) + NEXT), &rules());
    assert_eq!(verdict.counts.faults["kill"], 1);
    // Another's death does not help; it is shown.
    let other = killed.replace("a/", "c/");
    finds(
        Check::Exclusion,
        &[50, 51, 1, 1, 60, 70],
        &(held(&other) + NEXT),
        &rules(),
    );
    // Nor does one that comes too late.
    let late = killed.replace("50", "65").replace("51", "66");
    finds(
        Check::Exclusion,
        &[1, 1, 60, 70],
        &(held(&late) + NEXT),
        &rules(),
    );
}

#[test]
fn an_acquire_ends_with_its_process() {
    let rules = rules().response_timeout(ms(50));
    let lines = "0 a/1 acquire invoke <20\n 170 a/kill fault invoke\n 999 a/kill fault ok";
    is_clean(lines, &rules);
    finds(Check::Deadlines, &[0], &lines.replace("170", "171"), &rules);
}

#[test]
fn a_frozen_process_is_given_time_from_when_it_goes_on() {
    let rules = rules().response_timeout(ms(50));
    let lines = "
        0 a/1 acquire invoke <20
        10 a/freeze fault invoke
        1500 a/freeze fault ok
        1650 a/1 acquire fail";
    is_clean(lines, &rules);
    finds(
        Check::Deadlines,
        &[0, 1651],
        &lines.replace("1650", "1651"),
        &rules,
    );
    let other = lines.replace("a/freeze", "b/freeze");
    finds(Check::Deadlines, &[0, 1650], &other, &rules);
}

/// From before its beginning to after its end.
const FROZEN: &str = "10 a/freeze fault invoke\n 1500 a/freeze fault ok\n";

#[test]
fn a_holder_that_was_frozen_past_its_lease_has_to_hear_of_the_loss() {
    let heard = held(FROZEN) + "1501 a/1 lost ok\n 1502 a/1 release invoke\n 1503 a/1 release fail";
    assert_eq!(is_clean(&heard, &rules()).counts.losses, 1);
    // By its release, which is refused.
    let refused = held(FROZEN) + "1502 a/1 release invoke\n 1503 a/1 release fail";
    assert_eq!(is_clean(&refused, &rules()).counts.losses, 1);
    let released = refused.replace("fail", "ok");
    finds(Check::Loss, &[1, 10, 1500, 1502], &released, &rules());
    let late = heard
        .replace("1501", "2001")
        .replace("1502", "2002")
        .replace("1503", "2003");
    finds(Check::Loss, &[1, 10, 1500, 2001], &late, &rules());
    let never = held(FROZEN) + "3000 b/1 acquire invoke @y";
    finds(Check::Loss, &[1, 10, 1500, 1], &never, &rules());
}

#[test]
fn a_frozen_holder_of_a_lock_without_a_lease_keeps_it() {
    let rules = rules().fault("freeze", FaultRule::freeze(None));
    let kept = held(FROZEN) + "1502 a/1 release invoke\n 1503 a/1 release ok";
    is_clean(&kept, &rules);
    let lost = kept.replace("release ok", "release fail");
    finds(Check::Loss, &[1, 1503], &lost, &rules);
}

#[test]
fn one_who_got_the_lock_while_it_was_frozen_has_nothing_to_hear() {
    let rules = rules();
    for (asked, granted) in [(5, 1501), (5, 10)] {
        let lines = format!("{asked} a/1 acquire invoke\n {granted} a/1 acquire ok\n {FROZEN}");
        is_clean(
            &(lines + "1502 a/1 release invoke\n 1503 a/1 release ok"),
            &rules,
        );
    }
}

#[test]
fn a_loss_without_a_fault_is_found() {
    let lost = held("40 a/1 lost ok\n 41 a/1 release invoke\n 42 a/1 release fail");
    finds(Check::Loss, &[1, 40], &lost, &rules());
    for harmless in ["slow", "kill"] {
        let lines = format!("{lost}\n 30 c/{harmless} fault invoke\n 31 c/{harmless} fault ok");
        finds(Check::Loss, &[1, 40], &lines, &rules());
    }
    // One that can cost a lock is the reason, of those whom it hits, for a lease and a moment.
    is_clean(
        &(lost.clone() + "\n 30 /cut fault invoke\n 31 /cut fault ok"),
        &rules(),
    );
    is_clean(
        &(lost.clone() + "\n 30 /cut fault invoke @x\n 31 /cut fault ok @x"),
        &rules(),
    );
    for elsewhere in [
        "30 b/cut fault invoke",
        "30 /cut fault invoke @y",
        "41 /cut fault invoke",
    ] {
        let lines = format!("{lost}\n {elsewhere}");
        finds(Check::Loss, &[1, 40], &lines, &rules());
    }
    let cut = "\n 2 /cut fault invoke\n 3 /cut fault ok";
    is_clean(
        &(lost
            .replace("40", "2003")
            .replace("41", "2004")
            .replace("42", "2005")
            + cut),
        &rules(),
    );
    let late = lost
        .replace("40", "2004")
        .replace("41", "2005")
        .replace("42", "2006")
        + cut;
    finds(Check::Loss, &[1, 2004], &late, &rules());
}

#[test]
fn a_lock_that_is_valid_again_is_found() {
    let cut = "30 /cut fault invoke\n 31 /cut fault ok\n 40 a/1 lost ok\n";
    let again = held(cut) + "41 a/1 lost fail";
    finds(Check::Loss, &[40, 41], &again, &rules());
    let released = held(cut) + "42 a/1 release invoke\n 43 a/1 release ok";
    finds(Check::Loss, &[40, 43], &released, &rules());
}

/// The server drops the lock of a, and grants it to b.
fn terminated(noticed: u64) -> String {
    let lines = "30 a/terminate fault invoke\n 31 a/terminate fault ok\n".to_owned();
    let lost = format!(
        "{noticed} a/1 lost ok\n {noticed} a/1 release invoke\n {noticed} a/1 release fail"
    );
    held(&(lines + &lost)) + "\n 20 b/1 acquire invoke\n 32 b/1 acquire ok\n 999 b/1 release invoke"
}

#[test]
fn an_overlap_that_is_the_servers_doing_is_counted() {
    let counts = is_clean(&terminated(70), &rules()).counts;
    assert_eq!(
        (counts.overlaps_excused, counts.longest_overlap),
        (1, ms(38))
    );
}

#[test]
fn an_overlap_that_is_longer_than_it_may_be_is_found() {
    let verdict = verdict(&terminated(90), &rules());
    assert_eq!(
        verdict.checks(),
        [Check::Exclusion, Check::Loss],
        "{verdict}"
    );
    assert_eq!(verdict.counts.overlaps_excused, 0);
}

#[test]
fn an_overlap_that_a_fault_elsewhere_does_not_excuse_is_found() {
    let mut cut = FaultRule::harmless().may_cost_locks();
    cut.overlap = None;
    let rules = rules().fault("terminate", cut);
    finds(
        Check::Exclusion,
        &[30, 31, 1, 70, 32, 999],
        &terminated(70),
        &rules,
    );
}

#[test]
fn a_release_that_raced_with_the_end_of_its_session_is_clean() {
    let terminate = "30 a/terminate fault invoke\n 31 a/terminate fault ok\n";
    let raced = held(terminate) + "35 a/1 release invoke\n 36 a/1 release ok";
    is_clean(&raced, &rules());
    let late = raced.replace("35", "82").replace("36", "83");
    finds(Check::Loss, &[1, 30, 31, 82], &late, &rules());
}

#[test]
fn the_lock_of_a_killed_holder_that_nobody_gets_is_found() {
    let waits = "
        20 b/1 acquire invoke <900
        50 a/kill fault invoke
        51 a/kill fault ok
        151 b/1 acquire ok
        151 b/1 release invoke";
    let in_time = held(waits.trim()).replace("151", "150");
    is_clean(&in_time, &rules());
    let lines = held(waits.trim());
    finds(Check::NothingStuck, &[50, 1, 20, 151], &lines, &rules());
    // No process waits for so long, or the one that does is dead as well.
    is_clean(&lines.replace("<900", "<140"), &rules());
    is_clean(
        &lines.replace("b/1", "a/2"),
        &rules().lease(None).fault("kill", FaultRule::kill(ms(101))),
    );
}

#[test]
fn a_lock_that_cannot_be_had_after_all_is_healed_is_found() {
    let rules = rules().free_within(ms(100));
    let lines = held("9 a/1 release invoke\n 9 a/1 release ok\n 10 /heal fault ok\n");
    let probe = "11 probe/1 acquire invoke\n 110 probe/1 acquire ok";
    is_clean(&(lines.clone() + probe), &rules);
    let late = probe.replace("110", "111");
    finds(
        Check::NothingStuck,
        &[10, 11, 111, 0, 1],
        &(lines.clone() + &late),
        &rules,
    );
    let refused = probe.replace("110", "100").replace(" ok", " fail");
    finds(
        Check::NothingStuck,
        &[10, 11, 100, 0, 1],
        &(lines.clone() + &refused),
        &rules,
    );
    finds(Check::NothingStuck, &[10, 0, 1], &lines, &rules);
}

#[test]
fn a_run_that_does_not_tell_when_all_was_healed_is_found() {
    let lines = held("9 a/1 release invoke\n 9 a/1 release ok");
    finds(
        Check::NothingStuck,
        &[],
        &lines,
        &rules().free_within(ms(100)),
    );
}

#[test]
fn what_a_store_keeps_of_the_dead_is_found() {
    finds(
        Check::NothingStuck,
        &[9],
        "9 /left-over fault fail @key",
        &rules(),
    );
}

#[test]
fn a_fault_says_what_it_is() {
    let kill = FaultRule::kill(ms(1));
    assert_eq!((kill.process, kill.cost), (Fate::Killed, Cost::Nothing));
    let freeze = FaultRule::freeze(Some(LEASE));
    assert_eq!(
        (freeze.process, freeze.cost),
        (Fate::Frozen, Cost::Must(ms(500)))
    );
    assert_eq!(FaultRule::freeze(None).cost, Cost::Nothing);
}
