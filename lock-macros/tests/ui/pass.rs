//! The cases of `pass`, in one program, which compiles much faster than one for each. Each runs in a
//! process of its own, where it installs a provider of its own.

use std::env;
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
#[path = "pass/skip.rs"]
mod skip;

const CASES: &[(&str, fn() -> ExitCode)] = &[
    ("async_trait", || async_trait::main().report()),
    ("busy", || busy::main().report()),
    ("cancellation", || cancellation::main().report()),
    ("debug_handler", || debug_handler::main().report()),
    ("entry_points", || entry_points::main().report()),
    ("functions", || functions::main().report()),
    ("futures_are_send", || futures_are_send::main().report()),
    ("generics", || generics::main().report()),
    ("guard", || guard::main().report()),
    ("hashed", || hashed::main().report()),
    ("impl_trait", || impl_trait::main().report()),
    ("instrument", || instrument::main().report()),
    ("lifetimes", || lifetimes::main().report()),
    ("lock_name", || lock_name::main().report()),
    ("loss", || loss::main().report()),
    ("panics", || panics::main().report()),
    ("parameters_live", || parameters_live::main().report()),
    ("patterns", || patterns::main().report()),
    ("policies", || policies::main().report()),
    ("provider", || provider::main().report()),
    ("question_mark_and_return", || {
        question_mark_and_return::main().report()
    }),
    ("receivers", || receivers::main().report()),
    ("recursion", || recursion::main().report()),
    ("refused", || refused::main().report()),
    ("release", || release::main().report()),
    ("several_names", || several_names::main().report()),
    ("shadowed_prelude", || shadowed_prelude::main().report()),
    ("skip", || skip::main().report()),
];

fn main() -> ExitCode {
    if let Some(chosen) = env::args().nth(1) {
        let (_, case) = CASES
            .iter()
            .find(|(name, _)| *name == chosen)
            .expect("a case");
        return case();
    }
    let program = env::current_exe().expect("this program");
    let failed = CASES.iter().filter(|(name, _)| {
        let status = Command::new(&program).arg(name).status();
        let is_well = status.expect("it starts").success();
        if !is_well {
            eprintln!("{name} has failed");
        }
        !is_well
    });
    if failed.count() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
