//! The command `dlock`, as users and supervisors run it: as a process, with signals, pipes and a terminal.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

mod escapes;
mod job_control;
mod jobs;
mod lists;
mod looking;
mod loss;
mod processes;
mod pty;
mod reaching;
mod readers;
mod remedies;
mod running;
mod stores;
mod support;
mod terminal;
