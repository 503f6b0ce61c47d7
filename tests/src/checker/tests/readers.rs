//! Readers, which hold together, and writers, which do not.

use super::super::FaultRule;
use super::*;

/// One hold of a reader.
fn read(who: &str, asked: u64, granted: u64, released: u64) -> String {
    format!(
        "{asked} {who} acquire invoke shared
         {granted} {who} acquire ok
         {released} {who} release invoke
         {released} {who} release ok\n"
    )
}

fn write(who: &str, asked: u64, granted: u64, released: u64) -> String {
    read(who, asked, granted, released).replace(" shared", "")
}

#[test]
fn readers_overlap_and_are_counted() {
    let lines = [
        read("a/1", 0, 1, 9),
        read("a/2", 0, 2, 5),
        read("b/1", 0, 3, 7),
        write("b/2", 2, 9, 12),
        read("a/3", 3, 12, 13),
    ];
    let counts = is_clean(&lines.concat(), &plain()).counts;
    assert_eq!((counts.reads, counts.longest_wait_to_write), (4, ms(7)));
    assert_eq!(counts.longest_wait, ms(9));
}

#[test]
fn a_writer_beside_a_reader_is_found_whichever_was_first() {
    let lines = [
        read("a/1", 0, 1, 9),
        read("b/1", 0, 2, 3),
        write("b/2", 0, 5, 6),
    ];
    finds(Check::Exclusion, &[1, 9, 5, 6], &lines.concat(), &plain());
    let lines = [write("a/1", 0, 1, 9), read("b/1", 0, 5, 6)];
    finds(Check::Exclusion, &[1, 9, 5, 6], &lines.concat(), &plain());
    // Behind a reader that began later and ended earlier.
    let lines = [
        write("a/1", 0, 1, 9),
        write("b/1", 9, 9, 10),
        read("b/2", 9, 9, 12),
    ];
    finds(Check::Exclusion, &[9, 10, 9, 12], &lines.concat(), &plain());
}

#[test]
fn readers_of_one_process_may_be_seen_in_any_order_and_writers_may_not() {
    let rules = plain().fifo(ms(0));
    let lines = [read("a/1", 0, 5, 6), read("a/2", 1, 4, 6)];
    is_clean(&lines.concat(), &rules);
    let lines = [write("a/1", 0, 5, 6), read("a/2", 1, 2, 3)];
    finds(Check::Order, &[0, 1, 2, 5], &lines.concat(), &rules);
    let lines = [read("a/1", 0, 5, 6), write("a/2", 1, 2, 3)];
    finds(Check::Order, &[0, 1, 2, 5], &lines.concat(), &rules);
}

#[test]
fn readers_draw_no_tokens_and_those_of_writers_grow_across_them() {
    let token = |lines: String, token: u8| {
        lines.replacen("release invoke", &format!("release invoke #{token}"), 1)
    };
    let lines = [
        token(write("a/1", 0, 1, 2), 7),
        read("b/1", 0, 2, 4),
        token(write("a/2", 3, 4, 5), 8),
    ];
    is_clean(&lines.concat(), &Rules::default());
    let lines = lines.concat().replace("#8", "#6");
    finds(Check::TokenOrder, &[2, 5], &lines, &Rules::default());
}

#[test]
fn a_reader_that_is_killed_frees_the_lock_when_no_other_reads() {
    let rules = plain().fault("kill", FaultRule::kill(ms(100)));
    let killed = "10 a/kill fault invoke\n 11 a/kill fault ok\n";
    let reader = "0 a/1 acquire invoke shared\n 2 a/1 acquire ok\n";
    let writer = "5 c/1 acquire invoke\n 300 c/1 acquire ok\n";
    let alone = [reader, killed, writer].concat();
    finds(Check::NothingStuck, &[10, 2, 5, 300], &alone, &rules);
    let beside = read("b/1", 0, 1, 299);
    is_clean(&(alone.clone() + &beside), &rules);
    let gone = read("b/1", 0, 1, 9);
    finds(
        Check::NothingStuck,
        &[10, 2, 5, 300],
        &(alone + &gone),
        &rules,
    );
}
