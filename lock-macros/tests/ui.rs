//! What does not compile says what to do: one mistake a file, and its message beside it.
//!
//! After a change of a message, or of the compiler: `TRYBUILD=overwrite cargo test -p lock-macros`,
//! and read what has changed.

// No program that passes: with one trybuild would build each of these by itself, and not check all together.
#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/fail/*.rs");
}
