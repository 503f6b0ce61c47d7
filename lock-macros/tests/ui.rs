//! What compiles runs and asserts (`pass`); what does not, says what to do (`fail`): one mistake a
//! file, and its message beside it.
//!
//! After a change of a message, or of the compiler: `TRYBUILD=overwrite cargo test -p lock-macros`,
//! and read what has changed.

use std::fs;

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}

#[test]
fn every_case_that_is_to_pass_is_part_of_the_program() {
    let program = fs::read_to_string("tests/ui/pass.rs").expect("it is there");
    for case in fs::read_dir("tests/ui/pass").expect("it is there") {
        let case = case.expect("a file").file_name();
        let case = case.to_str().and_then(|case| case.strip_suffix(".rs"));
        let runs = format!(" {}::main().report()", case.expect("a program"));
        assert!(program.contains(&runs), "{runs}");
    }
}
