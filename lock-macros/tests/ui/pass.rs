//! What compiles runs and asserts. Each case is a program, and runs in a process of its own, where it installs a
//! provider of its own.
#![allow(clippy::all, reason = "they are written as users write")]

use std::env;
use std::fs;
use std::process::{Command, ExitCode, Termination};

#[path = "pass/async_trait.rs"]
mod async_trait;
#[path = "pass/busy.rs"]
mod busy;
#[path = "pass/cancellation.rs"]
mod cancellation;
#[path = "pass/debug_handler.rs"]
mod debug_handler;
#[path = "pass/entry_points.rs"]
mod entry_points;
#[path = "pass/functions.rs"]
mod functions;
#[path = "pass/futures_are_send.rs"]
mod futures_are_send;
#[path = "pass/generics.rs"]
mod generics;
#[path = "pass/guard.rs"]
mod guard;
#[path = "pass/hashed.rs"]
mod hashed;
#[path = "pass/impl_trait.rs"]
mod impl_trait;
#[path = "pass/instrument.rs"]
mod instrument;
#[path = "pass/lifetimes.rs"]
mod lifetimes;
#[path = "pass/lock_name.rs"]
mod lock_name;
#[path = "pass/loss.rs"]
mod loss;
#[path = "pass/panics.rs"]
mod panics;
#[path = "pass/parameters_live.rs"]
mod parameters_live;
#[path = "pass/patterns.rs"]
mod patterns;
#[path = "pass/permits.rs"]
mod permits;
#[path = "pass/policies.rs"]
mod policies;
#[path = "pass/provider.rs"]
mod provider;
#[path = "pass/question_mark_and_return.rs"]
mod question_mark_and_return;
#[path = "pass/receivers.rs"]
mod receivers;
#[path = "pass/recursion.rs"]
mod recursion;
#[path = "pass/refused.rs"]
mod refused;
#[path = "pass/release.rs"]
mod release;
#[path = "pass/several_names.rs"]
mod several_names;
#[path = "pass/shadowed_prelude.rs"]
mod shadowed_prelude;
#[path = "pass/shared.rs"]
mod shared;
#[path = "pass/skip.rs"]
mod skip;

/// Says in which process the case itself runs.
const ALONE: &str = "LOCK_MACROS_CASE";

fn alone(case: &str, main: fn() -> ExitCode) {
    if env::var_os(ALONE).is_some() {
        assert!(main() == ExitCode::SUCCESS);
        return;
    }
    let program = env::current_exe().expect("this program");
    let mut process = Command::new(program);
    process.args(["--exact", case, "--nocapture"]);
    let status = process.env(ALONE, "1").status().expect("it starts");
    assert!(status.success(), "{case}: {status}");
}

macro_rules! cases {
    ($($case:ident)*) => {
        const CASES: &[&str] = &[$(stringify!($case)),*];
        $(
            #[test]
            fn $case() {
                alone(stringify!($case), || $case::main().report());
            }
        )*
    };
}

cases! {
    async_trait busy cancellation debug_handler entry_points functions futures_are_send generics
    guard hashed impl_trait instrument lifetimes lock_name loss panics parameters_live patterns
    permits policies provider question_mark_and_return receivers recursion refused release several_names
    shadowed_prelude shared skip
}

#[test]
fn every_case_that_is_to_pass_is_part_of_the_program() {
    for case in fs::read_dir("pass").expect("it is there") {
        let case = case.expect("a file").file_name();
        let case = case.to_str().and_then(|case| case.strip_suffix(".rs"));
        let case = case.expect("a program");
        assert!(CASES.contains(&case), "{case}");
    }
}
