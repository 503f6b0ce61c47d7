//! What the driver is asked for and what it grants, with the keys and the waiters of Redis.

use super::key::Key;
use super::waiting::Waiting;
use crate::server::leased;

/// A lock that is held in Redis. Dropping it starts the release.
pub type RedisGrant = leased::KeyGrant<Key>;
pub(super) type Command = leased::Command<Waiting>;
pub(super) type Acquire = leased::Acquire<Waiting>;
pub(super) type Claim = leased::Claim<Waiting>;
pub(super) type Client = leased::Client<Key>;
pub(super) type HeldLock = leased::HeldLock<Key>;
pub(super) type Release = leased::Release<Key>;
pub(super) type Token = leased::Token<Key>;
pub(super) type WhoHolds = leased::WhoHolds<Key>;
