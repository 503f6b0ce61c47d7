//! What compiles runs and asserts (`pass`); what does not, says what to do (`fail`): one mistake a
//! file, and its message beside it.
//!
//! After a change of a message, or of the compiler: `TRYBUILD=overwrite cargo test -p lock-macros`,
//! and read what has changed.

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
