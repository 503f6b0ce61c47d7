//! Lock names: which lock, in a form that every backend can take and of which every log may show a
//! part. The rules stand at [`LockName`]; the grammar is `lock-grammar`'s.

mod hashed;
mod lock_name;
mod parsed;
#[cfg(feature = "serde")]
mod serde;
mod slot;
mod static_template;
mod template;
mod values;

#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
pub(crate) use hashed::secret_fingerprint;
pub(crate) use hashed::{fingerprint, set_name_secret};
pub use lock_name::LockName;
#[doc(hidden)]
pub use static_template::StaticTemplate;
pub use template::LockTemplate;
