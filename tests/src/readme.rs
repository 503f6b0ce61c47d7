//! The code of the README, compiled and run as it stands there.

#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Readme;
