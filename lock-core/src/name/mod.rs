//! Lock names: which lock, in a form that every backend can take and every log may show.
//!
//! A name is `{entity}:{operation}:{id}`, or `job:{name}` for work that has no id. Entity and
//! operation begin with a lower-case letter or a digit and go on with `a-z 0-9 _ . -`. A name has at
//! most 100 bytes.
//!
//! # Values
//!
//! What goes into an id is escaped, so that two values never give one name:
//!
//! - ASCII letters, digits and `. _ - @ +` stay as they are; each other byte of the UTF-8 text becomes
//!   `%XX`. A value holds no `:` when it is escaped, and cannot pass for a longer name.
//! - An empty value is an error: `order:process:` is more often a bug than a lock.
//! - Values that do not fit share what the literal text leaves of the 100 bytes, in equal parts. Each
//!   one that is longer than its part becomes a prefix of its escaped form, a `~`, and 128 bits of a
//!   hash of the whole value in base64url. This depends on nothing but the template and the values:
//!   every process finds the same name.
//! - `<email:hashed>` never shows the value: its place takes a `~` and 128 bits of an HMAC-SHA-256,
//!   keyed by the environment variable `LOCK_NAME_SECRET`, which every process of a fleet needs to
//!   have alike. Without it (or when it is empty) it is a plain SHA-256: the value stays out of logs,
//!   but whoever can guess it can recognise it.
//!
//! A shortened value still begins readable; one that must not be seen is to be `hashed`.
//!
//! # Labels
//!
//! Metrics, errors and logs show the [label](LockName::label) of a name, never the name.
//!
//! ```
//! use lock_core::{LockName, LockTemplate};
//!
//! let name = LockName::new("order", "process", 42)?;
//! assert_eq!(name.as_str(), "order:process:42");
//! assert_eq!(name, "order:process:42".parse()?);
//! assert_eq!(name.label(), "order:process");
//!
//! let template = LockTemplate::parse("file:sync:<tenant>:<path>")?;
//! let name = template.fill([("tenant", "acme"), ("path", "/var/a:b")])?;
//! assert_eq!(name.as_str(), "file:sync:acme:%2Fvar%2Fa%3Ab");
//! assert_eq!(name.label(), "file:sync:<tenant>:<path>");
//! # Ok::<(), lock_core::LockError>(())
//! ```

mod hashed;
#[cfg(feature = "file")]
pub(crate) mod key;
mod lock_name;
#[cfg(feature = "serde")]
mod serde;
mod static_template;
mod template;
mod values;

pub use lock_name::LockName;
#[doc(hidden)]
pub use static_template::StaticTemplate;
pub use template::LockTemplate;
