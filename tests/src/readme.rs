//! The code of the READMEs, compiled and run as it stands there.

#[doc = include_str!("../../README.md")]
#[derive(Debug)]
pub struct Project;

#[doc = include_str!("../../lock-core/README.md")]
#[derive(Debug)]
pub struct Core;

#[doc = include_str!("../../lock-tower/README.md")]
#[derive(Debug)]
pub struct Tower;

#[doc = include_str!("../../lock-idempotency/README.md")]
#[derive(Debug)]
pub struct Idempotency;

#[doc = include_str!("../../lock-macros/README.md")]
#[derive(Debug)]
pub struct Macros;
