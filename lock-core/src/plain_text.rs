//! Text of settings: one rule for the environment, for configuration files and for builders.
//!
//! - Blanks, control characters and invisible characters at the ends do not count. A file or a template
//!   of a deployment adds them (`shop\n`), and instances that differ in them alone would lock in two
//!   places.
//! - Inside, they are refused, but for plain spaces: they are invisible, or look like a space.
//! - Nothing else is changed. `Shop` and `shop` are two texts, and so are `é` as one character and as
//!   two (Unicode normalisation).

use std::path::Path;

use crate::LockError;

/// The text without what does not count at its ends.
pub(crate) fn trimmed(text: &str) -> &str {
    text.trim_matches(is_stray)
}

/// Refuses what does not belong inside of a text that was [trimmed].
///
/// # Errors
///
/// [`Misconfigured`](crate::LockErrorKind::Misconfigured), without the text, which can be a secret.
pub(crate) fn check(text: &str) -> Result<(), LockError> {
    match text.chars().find(|&c| c != ' ' && is_stray(c)) {
        None => Ok(()),
        Some(stray) => Err(LockError::misconfigured(format!(
            "it has a control character, an invisible character or an unusual blank inside \
             (U+{:04X}); remove it",
            u32::from(stray)
        ))),
    }
}

/// What a copy from elsewhere has around a text, which makes it another one: said of the text, without
/// it.
#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
pub(crate) fn slip(text: &str) -> Option<&'static str> {
    let begins = |with: &[&str]| with.iter().any(|with| text.starts_with(with));
    if begins(&["\"", "'", "`", "\u{201c}", "\u{2018}"]) {
        return Some(
            "is in quotes, which are part of it where no shell reads it (as in a file of `docker \
             --env-file`); remove them",
        );
    }
    if begins(&["${", "$(", "{{", "<", "%("]) || is_variable(text) {
        return Some(
            "is a placeholder, in whose place nothing has put a value; see what the process finds there",
        );
    }
    let named = text.split_once('=').map(|(name, _)| name);
    let name = named.map(|name| name.strip_prefix("export ").unwrap_or(name));
    if name.is_some_and(|name| {
        is_upper(name)
            && ["URL", "URI", "DSN", "DIR"]
                .iter()
                .any(|end| name.ends_with(end))
    }) {
        return Some("begins with the name of a variable; give what is after the `=` alone");
    }
    [
        (
            "psql ",
            "begins with `psql`, the name of a program; give what is after it alone",
        ),
        (
            "redis-cli ",
            "begins with `redis-cli`, the name of a program; give the URL after its `-u` alone",
        ),
        (
            "valkey-cli ",
            "begins with `valkey-cli`, the name of a program; give the URL after its `-u` alone",
        ),
    ]
    .into_iter()
    .find_map(|(program, said)| text.starts_with(program).then_some(said))
}

/// `$DATABASE_URL`, and nothing else.
#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
fn is_variable(text: &str) -> bool {
    text.strip_prefix('$').is_some_and(is_upper)
}

#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
fn is_upper(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.chars().all(is_part)
}

/// A namespace as it goes into keys.
///
/// # Errors
///
/// As of [`check`].
#[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
pub(crate) fn namespace(text: &str) -> Result<&str, LockError> {
    let text = trimmed(text);
    check(text).map_err(|error| error.in_setting("the namespace"))?;
    Ok(text)
}

/// A path is taken as it is, or not at all: it has to be the one that other programs see.
///
/// # Errors
///
/// As of [`check`], also for what is at the ends.
#[cfg(feature = "file")]
pub(crate) fn check_path(path: &Path) -> Result<(), LockError> {
    let text = path.to_string_lossy();
    if trimmed(&text) != text {
        return Err(LockError::misconfigured(
            "the path of the lock directory begins or ends with a blank, a control character or an \
             invisible character; remove it",
        ));
    }
    check(&text).map_err(|error| error.in_setting("the path of the lock directory"))?;
    let wrong = |what| LockError::misconfigured(format!("the path of the lock directory {what}"));
    // The first part alone: what is inside is the name of a directory.
    match text.split('/').next().unwrap_or_default() {
        "~" => Err(wrong(
            "begins with `~`, which a shell replaces and this process does not; write the whole path",
        )),
        first if first.starts_with('$') && is_variable(first) => Err(wrong(
            "begins with the name of a variable, which a shell replaces and this process does not; write \
             the whole path",
        )),
        _ => slip(&text).map_or(Ok(()), |slip| Err(wrong(slip))),
    }
}

/// A path of a setting without what does not count at its ends; one that is no Unicode stays as it is.
pub(crate) fn trimmed_path(path: &Path) -> &Path {
    path.to_str().map_or(path, |text| Path::new(trimmed(text)))
}

/// The bytes of a secret. One that is text, from a file or a variable, is read as text; random bytes
/// stay as they are, whatever they begin and end with.
pub(crate) fn secret(bytes: &[u8]) -> &[u8] {
    match str::from_utf8(bytes).map(trimmed) {
        Ok(text) if check(text).is_ok() => text.as_bytes(),
        _ => bytes,
    }
}

/// What is not seen, or is seen as a space.
fn is_stray(c: char) -> bool {
    c.is_whitespace() || c.is_control() || is_invisible(c)
}

/// Characters without a width of their own: soft hyphen, marks of direction, joiners, byte order mark,
/// fillers, variation selectors, tags.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_editor_adds_at_the_ends_does_not_count() {
        for text in [
            "shop",
            "shop\n",
            " shop",
            "shop\r\n",
            "\tshop ",
            "\u{feff}shop",
            "shop\u{200b}",
            "shop\0",
            "\u{a0}shop\u{3000}",
            "shop\u{2028}",
        ] {
            assert_eq!(trimmed(text), "shop", "{text:?}");
            assert_eq!(secret(text.as_bytes()), b"shop", "{text:?}");
        }
        assert_eq!(trimmed(" \n"), "");
    }

    #[test]
    fn what_nobody_sees_inside_is_refused_and_named() {
        for (text, named) in [
            ("sh\nop", "U+000A"),
            ("sh\0op", "U+0000"),
            ("sh\u{200b}op", "U+200B"),
            ("sh\u{a0}op", "U+00A0"),
            ("sh\u{feff}op", "U+FEFF"),
            ("sh\u{85}op", "U+0085"),
        ] {
            let error = check(text).unwrap_err();
            assert!(
                error.is_misconfigured() && error.to_string().contains(named),
                "{error}"
            );
        }
        for text in ["", "my shop", "Läden", "shop-1/eu"] {
            assert!(check(text).is_ok(), "{text}");
        }
    }

    #[cfg(any(feature = "file", feature = "postgres", feature = "redis"))]
    #[test]
    fn what_a_copy_from_elsewhere_has_around_it_is_told() {
        for (text, said) in [
            ("\"postgres://db/shop\"", "in quotes"),
            ("'redis://cache'", "in quotes"),
            ("$DATABASE_URL", "placeholder"),
            ("${REDIS_URL:-}", "placeholder"),
            ("{{ .Values.url }}", "placeholder"),
            ("<your url>", "placeholder"),
            ("REDIS_URL=redis://cache", "name of a variable"),
            (
                "export DATABASE_URL=postgres://db/shop",
                "name of a variable",
            ),
            ("psql 'postgres://db/shop'", "`psql`"),
            ("redis-cli --tls -u redis://cache", "`redis-cli`"),
        ] {
            assert!(slip(text).is_some_and(|told| told.contains(said)), "{text}");
        }
        for text in [
            "postgres://app:$x\"'@db/shop",
            "cache:6379,password=A_URL=1",
            "host=db user=app",
            "/run/locks",
        ] {
            assert_eq!(slip(text), None, "{text}");
        }
    }

    #[test]
    fn random_bytes_of_a_secret_stay_as_they_are() {
        for bytes in [&b"\n\xff\x00\x81 "[..], b"\x00\x01\xfe\n", b"a\x07b\n"] {
            assert_eq!(secret(bytes), bytes);
        }
    }

    #[cfg(feature = "file")]
    #[test]
    fn a_path_is_taken_as_it_is_or_not_at_all() {
        for path in ["/run/my locks", "/run/~/locks", "~locks", "run/$HOME"] {
            assert!(check_path(Path::new(path)).is_ok(), "{path:?}");
        }
        for path in [
            "/run/locks\n",
            " /run/locks",
            "/run/lo\ncks",
            "~/locks",
            "~",
            "$HOME/locks",
            "${HOME}/locks",
            "\"/run/locks\"",
            "LOCK_DIR=/run/locks",
        ] {
            assert!(
                check_path(Path::new(path)).unwrap_err().is_misconfigured(),
                "{path:?}"
            );
        }
    }
}
