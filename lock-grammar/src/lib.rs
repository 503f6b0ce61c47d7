//! The grammar of lock names and of their templates.
//!
//! One grammar for two readers: `lock-core` when a program runs, `lock-macros` when it compiles. It
//! only reads and judges text; filling a template is the business of `lock-core`.
//!
//! # Names
//!
//! ```text
//! name      = entity ":" operation ":" id  |  "job:" segment       at most 100 bytes
//! entity    = [a-z0-9] [a-z0-9_.-]*                                operation likewise
//! id        = segment (":" segment)*
//! segment   = one or more of:  A-Z a-z 0-9 . _ - @ +
//!                              %XX          any other byte, in upper-case hex
//!                              ~ hash       once; 22 characters of base64url
//! ```
//!
//! Each value has one spelling: `%41` is refused because `A` is readable, and `%3a` because hex is in
//! upper case. What stands behind `~` is the hash of a value that was too long, or was asked to be
//! hashed.
//!
//! # Templates
//!
//! A template is a name with placeholders in its id, or in the name of its job:
//!
//! - `<source>` is filled with the value of `source`, escaped; `<source:hashed>` with its hash.
//! - Entity and operation are always literal, and so are the first two parts of `job:sweep:<id>`. A
//!   job's literal text is written like an entity, and stands first in its name: a value alone could name
//!   any other job.
//! - Between two placeholders there is a `:`. Values never contain one, so that different values never
//!   give one name.
//! - The literal text leaves [`MIN_SHARE`] bytes for each placeholder: any value fits, by its hash if
//!   need be.
//!
//! What a source may be is for its reader to say; here it is text that is not empty, with brackets in
//! pairs, and without `<`, `>` and control characters.
//!
//! ```
//! use lock_grammar::{Piece, Template, check_name};
//!
//! let template = Template::parse("user:login:<tenant>:<email:hashed>").unwrap();
//! let sources: Vec<_> = template.placeholders().map(|p| (p.source, p.hashed)).collect();
//! assert_eq!(sources, [("tenant", false), ("email", true)]);
//! assert_eq!(template.pieces()[0], Piece::Literal("user:login:"));
//!
//! assert!(check_name("order:process:42").is_ok());
//! let error = check_name("order:process").unwrap_err();
//! assert!(error.to_string().contains("has no id"));
//! ```

mod error;
mod name;
mod template;

use std::time::Duration;

pub use error::{GrammarError, GrammarErrorKind};
pub use name::{check_entity, check_job, check_name, check_operation, is_readable};
pub use template::{Piece, Placeholder, Template};

/// The longest name, in bytes.
pub const MAX_NAME: usize = 100;

/// The most holders that a lock can have at a time, each in a slot of its own.
pub const MAX_PERMITS: usize = 256;

/// How long a lock is kept at most: a week, which is shorter than a store remembers the newest token.
pub const MAX_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// The length of a hash in a name: 128 bits in base64url without padding.
pub const HASH_LEN: usize = 22;

/// The fewest bytes that a placeholder needs: `~` and a hash.
pub const MIN_SHARE: usize = HASH_LEN + 1;

/// The most placeholders that fit into one template.
pub const MAX_PLACEHOLDERS: usize = MAX_NAME / MIN_SHARE;
