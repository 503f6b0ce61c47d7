//! Values in the text of a statement: none can end its literal.

use std::fmt::{self, Write};

/// A text as an expression, whatever the settings and the encoding of the session are: what is not plain is
/// sent as the digits of its bytes.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(text) = self;
        if text.bytes().all(is_plain) {
            return write!(f, "'{text}'");
        }
        f.write_str("pg_catalog.convert_from(pg_catalog.decode('")?;
        for byte in text.bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("', 'hex'), 'UTF8')")
    }
}

/// Texts as an expression for their array.
pub(super) fn texts<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> String {
    let (begin, end, is_plain) = match texts.clone().all(|text| text.bytes().all(is_plain)) {
        // One value, which the server reads faster than an expression for each.
        true => ("'{", "}'", true),
        false => ("ARRAY[", "]", false),
    };
    let mut array = String::from(begin);
    for (at, text) in texts.enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // A `String` takes whatever is written to it.
        let _ = match is_plain {
            true => write!(array, "{comma}\"{text}\""),
            false => write!(array, "{comma}{}", Text(text)),
        };
    }
    array + end
}

/// Values as those of an array.
pub(super) fn list(values: impl IntoIterator<Item = impl fmt::Display>) -> String {
    let mut list = String::new();
    for value in values {
        let comma = if list.is_empty() { "" } else { "," };
        // A `String` takes whatever is written to it.
        let _ = write!(list, "{comma}{value}");
    }
    list
}

/// The same, as the server reads it: one value, which takes it less time than a row for each lock.
pub(super) fn array(values: impl IntoIterator<Item = impl fmt::Display>) -> String {
    format!("'{{{}}}'", list(values))
}

/// As a `uuid` is read.
pub(super) struct Uuid(pub(super) u128);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// What names have, and nothing that means something within quotes.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b':' | b'.' | b'_' | b'-' | b'@' | b'+' | b'%' | b'~' | b' '
        )
}

/// A name of a schema or a table.
pub(super) struct Name<'a>(pub(super) &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_plain_stays_readable() {
        let name = "order:process:A%2Fb~x_1.y-z@w+v";
        assert_eq!(Text(name).to_string(), format!("'{name}'"));
        assert_eq!(Text("").to_string(), "''");
        assert_eq!(Name("a\"b").to_string(), "\"a\"\"b\"");
        let several = ["a:b", ""];
        assert_eq!(texts(several.into_iter()), r#"'{"a:b",""}'"#);
    }

    #[test]
    fn texts_of_which_one_is_not_plain_are_each_an_expression() {
        let several = ["a:b", "a\"b"];
        let [plain, other] = several.map(|text| Text(text).to_string());
        let expected = format!("ARRAY[{plain},{other}]");
        assert_eq!(texts(several.into_iter()), expected);
    }

    proptest! {
        /// The text between the quotes has no quote and no backslash, and the text can be read back.
        #[test]
        fn no_text_ends_its_literal(text in any::<String>()) {
            let written = Text(&text).to_string();
            let parts: Vec<_> = written.split('\'').collect();
            prop_assert!(!written.contains('\\'));
            let read = match parts[..] {
                ["", plain, ""] => plain.to_owned(),
                ["pg_catalog.convert_from(pg_catalog.decode(", digits, ", ", "hex", "), ", "UTF8", ")"] => {
                    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
                    let bytes = (0..digits.len()).step_by(2).map(byte).collect();
                    String::from_utf8(bytes).unwrap()
                }
                _ => return Err(TestCaseError::fail(written)),
            };
            prop_assert_eq!(read, text);
        }
    }
}
