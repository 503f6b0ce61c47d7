//! The page of `lock_tower::console`, in a browser.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

mod access;
mod browser;
mod refresh;
mod rows;
mod safety;
