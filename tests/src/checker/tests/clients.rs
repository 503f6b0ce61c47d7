//! What clients do by themselves: tokens, exclusion, fenced resources, order, deadlines.

use super::*;

/// One hold, from which the token is known at the release.
fn hold(who: &str, asked: u64, granted: u64, released: u64, token: u64) -> String {
    format!(
        "{asked} {who} acquire invoke
         {granted} {who} acquire ok
         {released} {who} release invoke #{token}
         {released} {who} release ok\n"
    )
}

#[test]
fn holders_in_order_are_clean() {
    let lines = [
        hold("a/1", 0, 1, 5, 1),
        hold("b/1", 0, 6, 8, 3),
        hold("a/2", 2, 8, 9, 4),
        hold("c/1", 0, 1, 99, 1)
            .replace(" invoke", " invoke @y")
            .replace(" ok", " ok @y"),
    ];
    let verdict = is_clean(&lines.concat(), &Rules::default());
    assert_eq!(verdict.counts.acquires.done, 4);
    assert_eq!(verdict.counts.longest_wait, ms(6));
}

#[test]
fn a_token_that_goes_back_is_found() {
    let lines = [
        hold("a/1", 0, 1, 2, 7),
        hold("b/1", 3, 4, 5, 9),
        hold("a/2", 6, 7, 8, 8),
    ];
    finds(
        Check::TokenOrder,
        &[5, 8],
        &lines.concat(),
        &Rules::default(),
    );
    // One who had asked before the other was granted may have the smaller one.
    let lines = [hold("a/1", 0, 6, 7, 1), hold("b/1", 0, 1, 2, 9)];
    is_clean(&lines.concat(), &Rules::default());
}

#[test]
fn a_token_that_is_used_twice_is_found() {
    let lines = [hold("a/1", 0, 1, 2, 7), hold("b/1", 0, 4, 5, 7)];
    finds(
        Check::TokenOrder,
        &[2, 5],
        &lines.concat(),
        &Rules::default(),
    );
    is_clean(&lines.concat(), &plain());
}

#[test]
fn a_second_token_of_one_holder_is_found() {
    let lines = "
        0 a/1 acquire invoke
        1 a/1 acquire ok
        2 a/1 write invoke #7
        3 a/1 write ok
        4 a/1 release invoke #8";
    finds(Check::TokenOrder, &[2, 4], lines, &Rules::default());
    is_clean(&lines.replace("#8", "#7"), &Rules::default());
}

#[test]
fn a_run_in_which_nobody_draws_a_token_is_found() {
    let lines = hold("a/1", 0, 1, 2, 7).replace(" #7", "");
    finds(Check::TokenOrder, &[], &lines, &Rules::default());
    is_clean(&lines, &plain());
}

#[test]
fn two_inside_at_once_are_found_also_around_a_short_one() {
    let lines = [
        hold("a/1", 0, 1, 10, 1),
        hold("a/2", 0, 11, 20, 2),
        hold("b/1", 0, 12, 13, 3),
        hold("b/2", 0, 19, 21, 4),
    ];
    let verdict = verdict(&lines.concat(), &plain());
    assert_eq!(verdict.checks(), [Check::Exclusion], "{verdict}");
    let pairs: Vec<_> = verdict
        .violations
        .iter()
        .map(|violation| violation.events.iter().map(|event| event.t_ns / 1_000_000))
        .map(Iterator::collect::<Vec<_>>)
        .collect();
    assert_eq!(pairs, [[11, 20, 12, 13], [11, 20, 19, 21]], "{verdict}");
}

#[test]
fn a_holder_that_never_gives_up_is_inside_for_good() {
    let lines = "0 a/1 acquire invoke\n 1 a/1 acquire ok\n".to_owned() + &hold("b/1", 0, 9, 10, 1);
    finds(Check::Exclusion, &[1, 1, 9, 10], &lines, &plain());
}

#[test]
fn a_hold_ends_with_its_lease_as_it_was_last_renewed() {
    let lines = "
        0 a/1 acquire invoke
        1 a/1 acquire ok <10
        5 a/1 write invoke #1 <20
        6 a/1 write ok
        30 a/1 release invoke
        31 a/1 release ok\n"
        .to_owned();
    is_clean(&(lines.clone() + &hold("b/1", 0, 20, 25, 2)), &plain());
    let found = lines + &hold("b/1", 0, 19, 25, 2);
    finds(Check::Exclusion, &[1, 30, 19, 25], &found, &plain());
}

/// A write between its beginning and its answer.
fn write(who: &str, from: u64, to: u64, token: u64, answer: &str) -> String {
    format!("{from} {who} write invoke #{token}\n {to} {who} write {answer}\n")
}

/// Writes of two who have the lock one after the other.
fn writes(lines: &[String]) -> String {
    let holders = "
        0 a/1 acquire invoke
        1 a/1 acquire ok <10
        2 b/1 acquire invoke
        11 b/1 acquire ok\n";
    holders.to_owned() + &lines.concat()
}

#[test]
fn a_stale_write_that_is_accepted_is_found() {
    let newer = write("b/1", 12, 13, 2, "ok");
    let stale = write("a/1", 14, 15, 1, "ok");
    let lines = writes(&[newer.clone(), stale.clone()]);
    finds(Check::FencedResource, &[12, 14], &lines, &plain());
    // Refused, or at the same time as the newer one, or before it.
    is_clean(
        &writes(&[newer.clone(), stale.replace(" ok", " fail")]),
        &plain(),
    );
    is_clean(
        &writes(&[newer.clone(), write("a/1", 13, 15, 1, "ok")]),
        &plain(),
    );
    is_clean(&writes(&[write("a/1", 2, 3, 1, "ok"), newer]), &plain());
}

#[test]
fn a_write_that_is_refused_without_reason_is_found() {
    let refused = write("b/1", 12, 13, 2, "fail");
    let lines = writes(&[write("a/1", 2, 3, 1, "ok"), refused.clone()]);
    finds(Check::FencedResource, &[12, 13], &lines, &plain());
    let later = write("a/1", 14, 15, 3, "ok");
    finds(
        Check::FencedResource,
        &[12, 13],
        &writes(&[refused, later]),
        &plain(),
    );
}

#[test]
fn a_resource_that_counts_otherwise_is_found() {
    let two = [write("a/1", 2, 3, 1, "ok"), write("b/1", 12, 13, 2, "ok")];
    let with = |more: &str| writes(&two) + more;
    for wrong in [
        "20 resource/writes write ok #1",
        "20 resource/writes write ok #3",
    ] {
        finds(Check::FencedResource, &[20], &with(wrong), &plain());
    }
    is_clean(&with("20 resource/writes write ok #2"), &plain());
    // One with an unknown outcome may have been counted, or not.
    let unknown = write("b/1", 14, 15, 2, "info");
    for (count, fits) in [(1, false), (2, true), (3, true), (4, false)] {
        let lines = with(&unknown) + &format!("20 resource/writes write ok #{count}");
        let verdict = verdict(&lines, &plain());
        assert_eq!(verdict.violations.is_empty(), fits, "{count} {verdict}");
    }
}

#[test]
fn a_resource_that_remembers_another_newest_token_is_found() {
    let lines = writes(&[
        write("a/1", 2, 3, 1, "ok"),
        "12 b/1 write invoke #4\n".to_owned(),
    ]);
    for (newest, fits) in [(0, false), (1, true), (4, true), (5, false)] {
        let lines = lines.clone() + &format!("20 resource/newest write ok #{newest}");
        let verdict = verdict(&lines, &plain());
        assert_eq!(verdict.violations.is_empty(), fits, "{newest} {verdict}");
    }
}

#[test]
fn one_who_overtakes_in_its_process_is_found() {
    let lines = [hold("a/1", 0, 10, 11, 1), hold("a/2", 3, 8, 9, 2)].concat();
    finds(Check::Order, &[0, 3, 8, 10], &lines, &plain().fifo(ms(2)));
    // The order of their calls is not known, or there is none.
    is_clean(&lines, &plain().fifo(ms(3)));
    is_clean(&lines, &plain());
    // Another process may be faster.
    is_clean(&lines.replace("a/2", "b/2"), &plain().fifo(ms(0)));
}

#[test]
fn an_acquire_that_ends_late_is_found() {
    let rules = plain().response_timeout(ms(50));
    let lines = "0 a/1 acquire invoke <20\n 170 a/1 acquire fail";
    is_clean(lines, &rules);
    finds(
        Check::Deadlines,
        &[0, 171],
        &lines.replace("170", "171"),
        &rules,
    );
    let granted = lines.replace("170", "171").replace("fail", "ok");
    finds(Check::Deadlines, &[0, 171], &granted, &rules);
    is_clean(&granted.replace(" <20", ""), &rules);
}

#[test]
fn an_acquire_that_never_ends_is_found() {
    let rules = plain().response_timeout(ms(50));
    let lines = "0 a/1 acquire invoke <20\n 5 b/1 acquire invoke\n 171 b/1 acquire fail";
    finds(Check::Deadlines, &[0], lines, &rules);
    is_clean(&lines.replace("171", "170"), &rules);
}
