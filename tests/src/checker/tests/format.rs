//! Events as they are written, and what does not fit together.

use super::super::Journal;
use super::*;

#[test]
fn an_event_is_a_line_of_json_as_it_is_documented() {
    let event = Event {
        t_ns: 1,
        process: "p0".to_owned(),
        op: "7".to_owned(),
        lock: "order:process:42".to_owned(),
        f: Action::Release,
        stage: Stage::Invoke,
        shared: false,
        token: Some(u64::MAX),
        valid_until_ns: Some(9),
    };
    let line = r#"{"t_ns":1,"process":"p0","op":"7","lock":"order:process:42","f":"release","type":"invoke","token":18446744073709551615,"valid_until_ns":9}"#;
    assert_eq!(serde_json::to_string(&event).unwrap(), line);
    assert_eq!(serde_json::from_str::<Event>(line).unwrap(), event);
    let short = r#"{"t_ns":1,"process":"","op":"kill","lock":"","f":"fault","type":"ok"}"#;
    let event: Event = serde_json::from_str(short).unwrap();
    assert_eq!(serde_json::to_string(&event).unwrap(), short);
    assert!(serde_json::from_str::<Event>(&short.replace("kill", "k\"")).is_err());
    assert!(serde_json::from_str::<Event>(&short.replace("lock", "key")).is_err());
}

#[test]
fn a_journal_in_a_file_is_read_up_to_a_line_that_was_cut_off() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("p0.jsonl");
    let journal = Journal::create(&path, "p0").unwrap();
    assert!(
        Journal::create(&path, "p0").is_err(),
        "one is not overwritten"
    );
    let operation = journal.operation(&"order:process:42");
    operation.ask(ms(5));
    operation.note(Action::Acquire, Stage::Fail);
    let events = Journal::read(&path).unwrap();
    assert_eq!(events.len(), 2);
    assert!(events[0].t_ns <= events[1].t_ns);
    let waits = events[0].valid_until_ns.unwrap() - events[0].t_ns;
    assert!(waits <= 5_000_000);

    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str(r#"{"t_ns":1,"pro"#);
    std::fs::write(&path, &text).unwrap();
    assert_eq!(Journal::read(&path).unwrap(), events);
    text.push('\n');
    std::fs::write(&path, &text).unwrap();
    assert!(Journal::read(&path).is_err(), "that was a whole line");
}

#[test]
fn an_answer_to_nothing_is_found() {
    for line in [
        "1 a/1 acquire ok",
        "1 a/1 release invoke",
        "1 a/1 write ok #1",
        "1 a/1 lost ok",
        "1 a/flood fault invoke",
        "1 a/kill fault ok",
        "1 a/heal fault invoke",
        "1 resource/size write ok #1",
    ] {
        finds(Check::History, &[1], line, &plain());
    }
}

#[test]
fn an_answer_that_comes_twice_is_found() {
    let rules = plain();
    let granted = "0 a/1 acquire invoke\n 1 a/1 acquire ok";
    for (then, again) in [
        ("", "1 a/1 acquire ok"),
        ("", "1 a/1 acquire invoke"),
        ("", "2 a/1 lost fail"),
        (
            "2 a/1 release invoke\n 3 a/1 release ok",
            "4 a/1 release ok",
        ),
        ("2 a/1 release invoke", "4 a/1 release invoke"),
        ("2 a/1 write invoke #1\n 3 a/1 write ok", "4 a/1 write fail"),
    ] {
        let lines = format!("{granted}\n{then}\n{again}").replace("\n\n", "\n");
        let verdict = verdict(&lines, &rules);
        assert!(
            verdict.checks().contains(&Check::History),
            "{lines}\n{verdict}"
        );
    }
    // Nor does an operation change its lock.
    finds(
        Check::History,
        &[1],
        "0 a/1 acquire invoke\n 1 a/1 acquire ok @y",
        &rules,
    );
}

#[test]
fn a_report_tells_what_was_done_and_what_is_wrong() {
    let lines = "
        0 a/1 acquire invoke
        1 a/1 acquire ok
        2 b/1 acquire invoke
        9 b/1 acquire ok
        9 c/1 acquire invoke
        9 c/1 acquire fail
        9 b/1 write invoke #5
        9 b/1 write info
        12 a/1 release invoke
        13 a/1 release ok
        14 b/1 release invoke";
    let report = verdict(lines, &plain()).to_string();
    for line in [
        "acquires          2 done, 1 refused, 0 unknown\n",
        "releases          1 done, 0 refused, 1 unknown\n",
        "fenced writes     0 done, 0 refused, 1 unknown\n",
        "longest wait      7.0ms, of b 1 for x\n",
        "violations        1\n",
        "exclusion: two were inside at once, for 3.0ms\n",
        r#"    {"t_ns":9000000,"process":"b","op":"1","lock":"x","f":"acquire","type":"ok"}"#,
    ] {
        assert!(report.contains(line), "{line}\n{report}");
    }
}

#[test]
#[should_panic(expected = "two were inside at once")]
fn what_is_not_clean_is_told_by_the_panic() {
    let one = "0 a/1 acquire invoke\n 1 a/1 acquire ok";
    is_clean(
        &format!(
            "{one}\n{}",
            one.replace('a', "b").replace("bcquire", "acquire")
        ),
        &plain(),
    );
}

#[test]
fn the_checks_of_a_long_history_take_no_long_time() {
    // Of one lock, with as much overlap as there can be between those who wait.
    let mut events = Vec::new();
    for turn in 0..50_000_u64 {
        let mut add = |millis: u64, f, stage, token| {
            events.push(Event {
                t_ns: millis * 1_000_000,
                process: format!("p{}", turn % 8),
                op: turn.to_string(),
                lock: "x".to_owned(),
                f,
                stage,
                shared: false,
                token,
                valid_until_ns: None,
            });
        };
        add(turn, Action::Acquire, Stage::Invoke, None);
        add(100_000 + 2 * turn, Action::Acquire, Stage::Ok, None);
        add(
            100_001 + 2 * turn,
            Action::Release,
            Stage::Invoke,
            Some(turn),
        );
        add(100_001 + 2 * turn, Action::Release, Stage::Ok, None);
    }
    let started = std::time::Instant::now();
    let verdict = judge(&events, &Rules::default().fifo(Duration::ZERO)).assert_clean();
    assert_eq!(verdict.counts.acquires.done, 50_000);
    // Anything quadratic takes minutes.
    assert!(
        started.elapsed() < Duration::from_secs(30),
        "{:?}",
        started.elapsed()
    );
}
