//! What one machine shows: names, files, probes, traces, the watch over the order of locks, nginx in front.

mod file;
mod health;
mod identities;
mod lock_order;
mod names;
mod nginx;
mod traces;
