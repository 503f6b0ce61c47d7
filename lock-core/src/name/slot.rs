//! The names of slots: of a lock that several may hold at a time, each holder has one.
//!
//! Slot 3 of `export:run:7` is `export:run:7#3`. A `#` stands in no name that a text, a template or a value
//! gives: the grammar knows none, and in a value it becomes `%23`. So a slot is no other lock, whatever ids
//! there are, and no text that a client sends is a slot. How many slots there are is not in the name: processes
//! that differ in it share those that both have.
//!
//! A slot of a name with more than 96 bytes has the begin of it, `#` and 128 bits of its hash, so that it fits
//! into 100 bytes as every name does. It has two `#`: it is no slot of a shorter name.

use lock_grammar::{HASH_LEN, MAX_NAME};
use smol_str::{SmolStr, format_smolstr};

use super::LockName;
use super::hashed::ValueHash;

/// The longest number, with its `#`.
const NUMBER: usize = "#256".len();

impl LockName {
    /// The name of this slot of the lock; the first is 1.
    pub(crate) fn slot(&self, number: usize) -> Self {
        let name = self.as_str();
        let text = if name.len() + NUMBER <= MAX_NAME {
            format_smolstr!("{name}#{number}")
        } else {
            let mut hash = ValueHash::slot();
            hash.update(name.as_bytes());
            let hash = hash.finish();
            let hash: SmolStr = hash.iter().copied().map(char::from).collect();
            // Names are ASCII.
            let begin = &name[..MAX_NAME - NUMBER - 1 - HASH_LEN];
            format_smolstr!("{begin}#{hash}#{number}")
        };
        self.derived(text)
    }
}

#[cfg(test)]
mod tests {
    use lock_grammar::MAX_PERMITS;

    use super::*;
    use crate::LockTemplate;

    fn slot(name: &str, number: usize) -> LockName {
        name.parse::<LockName>().unwrap().slot(number)
    }

    /// Frozen: processes of different versions share slots.
    #[test]
    fn slots_are_named_as_documented() {
        assert_eq!(slot("export:run:7", 1).as_str(), "export:run:7#1");
        assert_eq!(slot("job:reindex", 256).as_str(), "job:reindex#256");
        let longest = format!("export:run:{}", "x".repeat(85));
        assert_eq!(slot(&longest, 3).as_str(), format!("{longest}#3"));
        let longer = format!("export:run:{}", "x".repeat(86));
        let begin = format!("export:run:{}", "x".repeat(62));
        assert_eq!(
            slot(&longer, 3).as_str(),
            format!("{begin}#G-kXoDl5z0mh8DSDD-o5rg#3")
        );
    }

    #[test]
    fn slots_fit_and_are_no_names_that_others_can_make() {
        for len in [12, 90, 95, 96, 97, 100] {
            let name = format!("export:run:{}", "x".repeat(len - 11));
            let one = slot(&name, 1);
            assert!(one.as_str().len() <= MAX_NAME);
            assert!(slot(&name, MAX_PERMITS).as_str().len() <= MAX_NAME);
            assert_ne!(one, slot(&name, 2));
            assert!(one.as_str().parse::<LockName>().is_err());
            assert!(LockTemplate::parse(one.as_str()).is_err());
        }
        let value = LockName::new("export", "run", "7#1").unwrap();
        assert_ne!(value, slot("export:run:7", 1));
        // Of names that begin alike.
        let [one, other] = ["a", "b"].map(|end| slot(&format!("job:{}{end}", "x".repeat(95)), 1));
        assert_ne!(one, other);
    }

    #[test]
    fn a_slot_has_the_label_of_its_lock() {
        assert_eq!(slot("export:run:7", 12).label(), "export:run");
        assert_eq!(slot("job:reindex", 1).label(), "job:reindex");
        let long = format!("job:{}", "x".repeat(96));
        assert_eq!(slot(&long, 1).label(), long);
        let template = LockTemplate::parse("export:run:<tenant>").unwrap();
        let name = template.fill([("tenant", "acme")]).unwrap();
        assert_eq!(name.slot(2).label(), "export:run:<tenant>");
    }
}
