//! Values of settings that are written as text, in the environment and in a configuration.

use std::time::Duration;

use super::ProviderKind;
use crate::{LockError, plain_text};

/// The value of `LOCK_PROVIDER`.
pub(super) fn parse_provider(text: &str) -> Result<Option<ProviderKind>, LockError> {
    match plain_text::trimmed(text) {
        "" => Ok(None),
        text => match text.parse() {
            Ok(kind) => Ok(Some(kind)),
            Err(error) => Err(LockError::in_setting(error, "LOCK_PROVIDER")),
        },
    }
}

/// The value of `LOCK_LEASE`.
pub(super) fn parse_lease(text: &str) -> Result<Option<Duration>, LockError> {
    let text = plain_text::trimmed(text);
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = humantime::parse_duration(text);
    // Without the error of the parser, which repeats a part of the text.
    parsed.map(Some).map_err(|_| {
        LockError::misconfigured(
            "LOCK_LEASE: it is not a duration; write a number and its unit, like `500ms` or `30s`",
        )
    })
}

/// The value of `LOCK_SWITCH`.
pub(super) fn parse_switch(text: &str) -> Result<bool, LockError> {
    match plain_text::trimmed(text) {
        "" => Ok(false),
        "allow" => Ok(true),
        _ => Err(LockError::misconfigured(
            "LOCK_SWITCH: it is neither empty nor `allow`",
        )),
    }
}

/// The value of `LOCK_MARKER`: whether the mark is required.
pub(super) fn parse_marker(text: &str) -> Result<bool, LockError> {
    match plain_text::trimmed(text) {
        "" | "required" => Ok(true),
        "optional" => Ok(false),
        _ => Err(LockError::misconfigured(
            "LOCK_MARKER: it is neither `required`, which is the default, nor `optional`",
        )),
    }
}
