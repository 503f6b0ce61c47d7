//! Values on their way into a name: escaped, shortened or hashed, each formatted once and none of
//! them ever whole in memory.
//!
//! The values share the room that the literal text leaves. As long as all of them fit they are just
//! escaped. When that fails the name is *crowded*: from then on each value has an equal share, those
//! that were there before too, and one that is longer than its share is cut and ends in its hash.
//! Which values are cut depends on their lengths only, not on the order in which they came.

use std::fmt::{self, Display, Write};

use lock_grammar::{MAX_NAME, MAX_PLACEHOLDERS, MIN_SHARE, is_readable};
use smol_str::SmolStr;

use super::hashed::ValueHash;

/// The values of one name, encoded.
pub(super) struct Values {
    /// One after the other, in the order in which they came.
    text: [u8; MAX_NAME],
    len: usize,
    spans: [Span; MAX_PLACEHOLDERS],
    taken: usize,
    room: usize,
    share: usize,
    is_crowded: bool,
}

/// Where the value of a placeholder is.
#[derive(Clone, Copy, Default)]
struct Span {
    place: usize,
    start: usize,
    end: usize,
}

/// Why a value cannot be part of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueError {
    Empty,
    /// Its `Display` returned an error.
    Unformattable,
}

impl Values {
    /// No values yet, with `room` for those of so many placeholders: at least [`MIN_SHARE`] for each.
    pub(super) fn new(room: usize, places: usize) -> Self {
        Self {
            text: [0; MAX_NAME],
            len: 0,
            spans: [Span::default(); MAX_PLACEHOLDERS],
            taken: 0,
            room,
            share: room / places.max(1),
            is_crowded: false,
        }
    }

    /// Takes the value of a placeholder.
    pub(super) fn take(&mut self, place: usize, value: &dyn Display) -> Result<(), ValueError> {
        self.take_as(place, value, None)
    }

    /// Takes the hash of the value of a placeholder, begun with what comes before the value.
    pub(super) fn take_hashed(
        &mut self,
        place: usize,
        value: &dyn Display,
        hash: ValueHash,
    ) -> Result<(), ValueError> {
        self.take_as(place, value, Some(hash))
    }

    fn take_as(
        &mut self,
        place: usize,
        value: &dyn Display,
        hash: Option<ValueHash>,
    ) -> Result<(), ValueError> {
        let mut taking = Taking {
            start: self.len,
            values: self,
            hash,
            is_empty: true,
        };
        write!(taking, "{value}").map_err(|_| ValueError::Unformattable)?;
        if taking.is_empty {
            return Err(ValueError::Empty);
        }
        taking.finish(place);
        Ok(())
    }

    /// The value of this placeholder as it stands in the name; empty if there was none.
    pub(super) fn get(&self, place: usize) -> &[u8] {
        self.spans[..self.taken]
            .iter()
            .find(|span| span.place == place)
            .map_or(&[], |span| &self.text[span.start..span.end])
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.text[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    /// Ends the text that begins at `start` within its share, with a hash.
    fn end_with(&mut self, start: usize, hash: ValueHash) {
        self.len = start + cut(&self.text[start..self.len], self.share - MIN_SHARE).len();
        self.push(b"~");
        self.push(&hash.finish());
    }
}

/// The value that is being taken.
struct Taking<'a> {
    values: &'a mut Values,
    start: usize,
    /// Of the whole value, once it has to be hashed.
    hash: Option<ValueHash>,
    is_empty: bool,
}

impl Taking<'_> {
    /// How many more bytes of text may come, as far as is known.
    fn left(&self) -> usize {
        let end = if self.values.is_crowded {
            self.start + self.values.share
        } else {
            self.values.room
        };
        end.saturating_sub(self.values.len)
    }

    /// Gives every value its share, those that were taken before first.
    fn crowd(&mut self) {
        let values = &mut *self.values;
        values.is_crowded = true;
        let (old, old_len) = (values.text, values.len);
        values.len = 0;
        for n in 0..values.taken {
            let Span { place, start, end } = values.spans[n];
            let value = &old[start..end];
            let start = values.len;
            values.push(value);
            if value.len() > values.share {
                values.end_with(start, hash_of(value));
            }
            values.spans[n] = Span {
                place,
                start,
                end: values.len,
            };
        }
        let start = values.len;
        values.push(&old[self.start..old_len]);
        self.start = start;
    }

    fn finish(&mut self, place: usize) {
        if let Some(hash) = self.hash.take() {
            if !self.values.is_crowded && self.left() < MIN_SHARE {
                self.crowd();
            }
            self.values.end_with(self.start, hash);
        }
        let values = &mut *self.values;
        values.spans[values.taken] = Span {
            place,
            start: self.start,
            end: values.len,
        };
        values.taken += 1;
    }
}

impl Write for Taking<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.is_empty &= part.is_empty();
        let mut rest = part.as_bytes();
        if let Some(hash) = &mut self.hash {
            hash.update(rest);
            return Ok(());
        }
        while let Some(&byte) = rest.first() {
            let left = self.left();
            let run = rest.iter().take_while(|&&b| is_readable(b)).count();
            let taken = if run > 0 {
                let fits = run.min(left);
                self.values.push(&rest[..fits]);
                fits
            } else if left >= ESCAPE_LEN {
                self.values.push(&escape(byte));
                1
            } else {
                0
            };
            rest = &rest[taken..];
            if taken > 0 {
                continue;
            }
            if !self.values.is_crowded {
                self.crowd();
                continue;
            }
            let mut hash = hash_of(&self.values.text[self.start..self.values.len]);
            hash.update(rest);
            self.hash = Some(hash);
            break;
        }
        Ok(())
    }
}

const ESCAPE_LEN: usize = "%XX".len();

fn escape(byte: u8) -> [u8; ESCAPE_LEN] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |four: u8| HEX[usize::from(four)];
    [b'%', digit(byte >> 4), digit(byte & 15)]
}

/// The hash of the value behind an escaped text.
fn hash_of(mut text: &[u8]) -> ValueHash {
    fn digit(hex: u8) -> u8 {
        match hex {
            b'0'..=b'9' => hex - b'0',
            _ => hex - b'A' + 10,
        }
    }
    let mut hash = ValueHash::shortened();
    while let Some(at) = text.iter().position(|&b| b == b'%') {
        hash.update(&text[..at]);
        hash.update(&[digit(text[at + 1]) << 4 | digit(text[at + 2])]);
        text = &text[at + ESCAPE_LEN..];
    }
    hash.update(text);
    hash
}

/// The beginning of an escaped text, at most `len` bytes, with no escape cut through.
fn cut(text: &[u8], len: usize) -> &[u8] {
    let head = &text[..len.min(text.len())];
    // Escapes are whole in the text: one that begins in the last two bytes was cut through here.
    let tail = head.len().saturating_sub(ESCAPE_LEN - 1);
    match head[tail..].iter().position(|&b| b == b'%') {
        Some(at) => &head[..tail + at],
        None => head,
    }
}

/// A name in the making.
pub(super) struct NameBuffer {
    bytes: [u8; MAX_NAME],
    len: usize,
}

impl NameBuffer {
    pub(super) fn new() -> Self {
        Self {
            bytes: [0; MAX_NAME],
            len: 0,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    pub(super) fn finish(self) -> SmolStr {
        SmolStr::from_utf8(&self.bytes[..self.len]).expect("a name is ASCII")
    }
}

#[cfg(test)]
mod tests;
