//! Options of connection strings, in errors. What stands in the place of an option can be the rest of
//! a password that was not encoded: only names that are on a list are shown.

/// What an error says of an option that is on no list: its position, what is known, and what is
/// probably meant.
pub(crate) fn unknown(position: usize, given: &str, known: &[&str]) -> String {
    let meant = match nearest(given, known) {
        Some(name) => format!(", meant as `{name}` perhaps"),
        None => String::new(),
    };
    format!(
        "has an unknown option (number {position}{meant}); known are {}",
        known.join(", ")
    )
}

/// The known text that this one is a slip of.
pub(crate) fn nearest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
    let given = plain(given);
    known
        .iter()
        .map(|name| (strsim::osa_distance(&given, &plain(name)), *name))
        .filter(|(distance, name)| *distance <= name.len() / 4)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["sslmode", "user", "sslrootcert"];

    #[test]
    fn a_slip_is_told_by_what_was_meant() {
        for (given, meant) in [
            ("sslmod", Some("sslmode")),
            ("SSL_MODE", Some("sslmode")),
            ("usr", Some("user")),
            ("sslrootcret", Some("sslrootcert")),
            ("hunter2", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, &KNOWN), meant, "{given}");
        }
        let said = unknown(2, "hunter2", &KNOWN);
        assert_eq!(
            said,
            "has an unknown option (number 2); known are sslmode, user, sslrootcert"
        );
    }
}
