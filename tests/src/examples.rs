//! The programs of other crates, which tests start: the examples, and `dlock`.

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
    program_of(example, example)
}

/// The same for a program of a package with another name.
///
/// # Panics
///
/// When it does not compile.
#[must_use]
pub fn program_of(package: &str, program: &str) -> PathBuf {
    if let Some(built) = env::var_os(BUILT) {
        return PathBuf::from(built).join(program);
    }
    let build = CargoBuild::new().package(package).bin(program);
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
    let built = built.unwrap_or_else(|error| panic!("`cargo build -p {package}`: {error}"));
    built.path().to_owned()
}

/// Whether Cargo has told this of the package of the test. Build scripts look at it, and what depends on
/// them would be compiled again, here and then by the next build.
fn is_about_this_package(variable: &OsStr) -> bool {
    let variable = variable.to_string_lossy();
    let is_about = |prefix| variable.starts_with(prefix);
    is_about("CARGO_PKG_") || is_about("CARGO_MANIFEST_")
}
