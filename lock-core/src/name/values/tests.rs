//! The encoding against its rules, written down once more for values that are whole in memory.

use proptest::prelude::*;

use super::super::hashed::NameSecret;
use super::*;

/// A value whose `Display` writes it in parts of so many characters.
struct InParts<'a>(&'a str, usize);

impl Display for InParts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chars: Vec<char> = self.0.chars().collect();
        chars
            .chunks(self.1)
            .try_for_each(|part| f.write_str(&part.iter().collect::<String>()))
    }
}

fn encode(room: usize, values: &[(usize, &dyn Display)]) -> Vec<String> {
    let mut encoded = Values::new(room, values.len());
    for (place, value) in values {
        encoded.take(*place, value).unwrap();
    }
    (0..values.len())
        .map(|place| String::from_utf8(encoded.get(place).to_vec()).unwrap())
        .collect()
}

fn escaped(value: &str) -> String {
    value.bytes().fold(String::new(), |mut text, byte| {
        match char::from(byte) {
            c if is_readable(byte) => text.push(c),
            _ => write!(text, "%{byte:02X}").unwrap(),
        }
        text
    })
}

fn hash(value: &str) -> String {
    let mut hash = ValueHash::shortened();
    hash.update(value.as_bytes());
    String::from_utf8(hash.finish().to_vec()).unwrap()
}

/// What [`Values`] must come to.
fn expected(room: usize, values: &[String]) -> Vec<String> {
    let fits = values.iter().map(|v| escaped(v).len()).sum::<usize>() <= room;
    let share = room / values.len();
    values
        .iter()
        .map(|value| {
            let text = escaped(value);
            if fits || text.len() <= share {
                return text;
            }
            let mut prefix = &text[..share - MIN_SHARE];
            if let Some(at) = prefix.rfind('%').filter(|at| prefix.len() - at < 3) {
                prefix = &prefix[..at];
            }
            format!("{prefix}~{}", hash(value))
        })
        .collect()
}

/// Values of the lengths at which something happens, made of all that is escaped and is not.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,60}",
        "[a-c:%~/é\u{0}]{1,40}",
        "[aé]{80,130}",
        any::<String>().prop_filter("a value is not empty", |v| !v.is_empty()),
    ]
}

proptest! {
    #[test]
    fn values_are_encoded_by_the_rules(
        values in prop::collection::vec(value(), 1..=4),
        spare in 0..8_usize,
        size in 1..9_usize,
    ) {
        let room = values.len() * MIN_SHARE + spare;
        let parts: Vec<_> = values.iter().map(|v| InParts(v, size)).collect();
        let given: Vec<(usize, &dyn Display)> =
            parts.iter().enumerate().map(|(n, v)| (n, v as _)).collect();
        prop_assert_eq!(encode(room, &given), expected(room, &values));
    }

    #[test]
    fn the_order_in_which_values_come_makes_no_difference(
        values in prop::collection::vec(value(), 1..=3),
        room in 69..=96_usize,
    ) {
        let mut given: Vec<(usize, &dyn Display)> =
            values.iter().enumerate().map(|(n, v)| (n, v as _)).collect();
        let forth = encode(room, &given);
        given.reverse();
        let back = encode(room, &given);
        prop_assert_eq!(&forth, &back);
        prop_assert_eq!(forth, expected(room, &values));
    }

    #[test]
    fn hashed_and_other_values_never_take_more_than_the_room(
        values in prop::collection::vec((value(), any::<bool>()), 1..=4),
        spare in 0..8_usize,
    ) {
        let room = values.len() * MIN_SHARE + spare;
        let mut encoded = Values::new(room, values.len());
        for (place, (value, hashed)) in values.iter().enumerate() {
            if *hashed {
                encoded.take_hashed(place, value, ValueHash::hashed(&NameSecret::new(b""), std::iter::empty(), place)).unwrap();
            } else {
                encoded.take(place, value).unwrap();
            }
        }
        let taken: usize = (0..values.len()).map(|place| encoded.get(place).len()).sum();
        prop_assert!(taken <= room);
        for (place, (_, hashed)) in values.iter().enumerate() {
            let text = encoded.get(place);
            prop_assert!(!hashed || text.len() == MIN_SHARE && text[0] == b'~');
        }
    }
}

#[test]
fn an_escape_is_never_cut_through() {
    assert_eq!(cut(b"ab%41%42", 8), b"ab%41%42");
    assert_eq!(cut(b"ab%41%42", 7), b"ab%41");
    assert_eq!(cut(b"ab%41%42", 6), b"ab%41");
    assert_eq!(cut(b"ab%41%42", 5), b"ab%41");
    assert_eq!(cut(b"ab%41%42", 4), b"ab");
    assert_eq!(cut(b"%41", 1), b"");
    assert_eq!(cut(b"%41", 0), b"");
}

#[test]
fn a_value_is_formatted_once() {
    struct Counted(std::cell::Cell<u32>);
    impl Display for Counted {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.set(self.0.get() + 1);
            f.write_str(&"/".repeat(100))
        }
    }
    let value = Counted(0.into());
    encode(80, &[(0, &value), (1, &"b".repeat(100))]);
    assert_eq!(value.0.get(), 1);
}

#[test]
fn what_cannot_be_formatted_is_refused() {
    struct Broken;
    impl Display for Broken {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("begun")?;
            Err(fmt::Error)
        }
    }
    let mut values = Values::new(80, 1);
    assert_eq!(values.take(0, &Broken), Err(ValueError::Unformattable));
    assert_eq!(values.take(0, &""), Err(ValueError::Empty));
}

#[test]
fn a_value_may_come_with_empty_parts() {
    struct Padded;
    impl Display for Padded {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            ["", "a", ""].iter().try_for_each(|part| f.write_str(part))
        }
    }
    assert_eq!(encode(80, &[(0, &Padded)]), ["a"]);
}
