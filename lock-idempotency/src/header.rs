//! The key as clients send it.

use http::{HeaderMap, HeaderName};

/// The longest key, in bytes: that of Stripe.
const LONGEST: usize = 255;

/// Why the header is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadKey;

/// The key of a request, `None` where it has none.
///
/// The draft's form is a string of RFC 9651, in double quotes, where `\` escapes `"` and `\`. Most clients
/// send the key bare. Both forms of one text are one key, so that a client may change its library.
pub(crate) fn key(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, BadKey> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    // Which of two would it be? A proxy and this layer might choose differently.
    if values.next().is_some() {
        return Err(BadKey);
    }
    let text = value
        .to_str()
        .map_err(|_| BadKey)?
        .trim_matches([' ', '\t']);
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquoted(quoted)?,
        None if text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.contains('"') => {
            text.to_owned()
        }
        None => return Err(BadKey),
    };
    if (1..=LONGEST).contains(&key.len()) {
        Ok(Some(key))
    } else {
        Err(BadKey)
    }
}

/// What is between the quotes; nothing may follow the second.
fn unquoted(quoted: &str) -> Result<String, BadKey> {
    let mut key = String::with_capacity(quoted.len());
    let mut rest = quoted.chars();
    while let Some(next) = rest.next() {
        match next {
            '"' if rest.as_str().is_empty() => return Ok(key),
            '\\' => match rest.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(BadKey),
            },
            ' '..='~' if next != '"' => key.push(next),
            _ => return Err(BadKey),
        }
    }
    Err(BadKey)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NAME: HeaderName = HeaderName::from_static("idempotency-key");

    fn of(values: &[&[u8]]) -> Result<Option<String>, BadKey> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(NAME, HeaderValue::from_bytes(value).expect("a value"));
        }
        key(&headers, &NAME)
    }

    #[test]
    fn quoted_and_bare_forms_of_one_text_are_one_key() {
        for value in [
            "8e03978e-40d5",
            r#""8e03978e-40d5""#,
            r#"  "8e03978e-40d5" "#,
        ] {
            assert_eq!(
                of(&[value.as_bytes()]),
                Ok(Some("8e03978e-40d5".to_owned()))
            );
        }
        assert_eq!(
            of(&[br#""a \"b\" \\ c""#]),
            Ok(Some(r#"a "b" \ c"#.to_owned()))
        );
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let long = "k".repeat(LONGEST + 1);
        let bad: &[&[u8]] = &[
            b"",
            b"\"\"",
            b"\"open",
            b"a\"b",
            b"\"a\"b",
            b"\"a\";p=1",
            b"a b",
            b"\"a\\x\"",
            b"\"a\tb\"",
            "\u{e9}".as_bytes(),
            long.as_bytes(),
        ];
        for value in bad {
            assert_eq!(of(&[value]), Err(BadKey), "{}", value.escape_ascii());
        }
        assert_eq!(of(&[b"a", b"a"]), Err(BadKey));
        assert!(of(&[&long.as_bytes()[1..]]).is_ok());
    }
}
