//! The programs of the examples, which tests start.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;

use escargot::CargoBuild;

/// Where all of them are that were built before: `tests/run` says so.
const BUILT: &str = "TESTS_EXAMPLES";

/// Where an example is. It is built with the profile of the tests, unless all were before.
///
/// # Panics
///
/// When it does not compile.
#[must_use]
pub fn program(example: &str) -> PathBuf {
    if let Some(built) = env::var_os(BUILT) {
        return PathBuf::from(built).join(example);
    }
    let build = CargoBuild::new().package(example).bin(example);
    let told = env::vars_os().map(|(variable, _)| variable);
    let build = told
        .filter(|variable| is_about_this_package(variable))
        .fold(build, CargoBuild::env_remove);
    let build = if cfg!(debug_assertions) {
        build
    } else {
        build.release()
    };
    let built = build.run();
    let built = built.unwrap_or_else(|error| panic!("`cargo build -p {example}`: {error}"));
    built.path().to_owned()
}

/// Whether Cargo has told this of the package of the test. Build scripts look at it, and what depends on
/// them would be compiled again, here and then by the next build.
fn is_about_this_package(variable: &OsStr) -> bool {
    let variable = variable.to_string_lossy();
    let is_about = |prefix| variable.starts_with(prefix);
    is_about("CARGO_PKG_") || is_about("CARGO_MANIFEST_")
}
