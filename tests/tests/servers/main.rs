//! The servers of the tests do what the tests believe, and leave nothing behind.

mod ending;
mod network;
mod postgres;
mod proxy;
mod redis;
mod support;
