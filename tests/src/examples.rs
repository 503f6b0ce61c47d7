//! The programs of the examples, which tests start.

use std::path::PathBuf;

use escargot::CargoBuild;

/// Builds an example with the profile of the tests, if that was not done, and tells where it is.
///
/// # Panics
///
/// When it does not compile.
#[must_use]
pub fn program(example: &str) -> PathBuf {
    // What cargo tells a test about its package would make build scripts run again that ask for it,
    // and compile again what depends on them.
    let ours = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
    });
    let build = CargoBuild::new().package(example).bin(example);
    let build = ours.fold(build, CargoBuild::env_remove);
    let build = if cfg!(debug_assertions) {
        build
    } else {
        build.release()
    };
    let built = build.run();
    let built = built.unwrap_or_else(|error| panic!("`cargo build -p {example}`: {error}"));
    built.path().to_owned()
}
