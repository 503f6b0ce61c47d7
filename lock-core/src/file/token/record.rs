//! A record on disk, with what is needed to know that it was written whole.
//!
//! ```text
//!  0  magic    8 bytes, also tells the two kinds apart
//!  8  value    u64, little endian: the ceiling, or the last token
//! 16  ceiling  u64, little endian: with the last token, the ceiling that was synced; else 0
//! 24  boot     u64, little endian: with the last token, the boot it is from; else 0
//! 32  crc32    u32, little endian, of the bytes before
//! ```

pub(super) const LEN: usize = 36;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Ceiling(u64),
    Last(Last),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Last {
    pub(super) token: u64,
    pub(super) ceiling: u64,
    pub(super) boot: u64,
}

impl Record {
    pub(super) fn encode(self) -> [u8; LEN] {
        let (magic, fields) = match self {
            Self::Ceiling(ceiling) => (*b"dlockCv1", [ceiling, 0, 0]),
            Self::Last(last) => (*b"dlockLv1", [last.token, last.ceiling, last.boot]),
        };
        let mut record = [0; LEN];
        record[..8].copy_from_slice(&magic);
        for (place, field) in record[8..32].chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        let sum = crc32fast::hash(&record[..32]);
        record[32..].copy_from_slice(&sum.to_le_bytes());
        record
    }

    /// The record, if it is whole.
    pub(super) fn decode(record: &[u8; LEN]) -> Option<Self> {
        let field = |at: usize| Some(u64::from_le_bytes(*record[at..].first_chunk()?));
        let decoded = match record.first_chunk()? {
            b"dlockCv1" => Self::Ceiling(field(8)?),
            b"dlockLv1" => Self::Last(Last {
                token: field(8)?,
                ceiling: field(16)?,
                boot: field(24)?,
            }),
            _ => return None,
        };
        (decoded.encode() == *record).then_some(decoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: Record = Record::Last(Last {
        token: 42,
        ceiling: 1000,
        boot: 7,
    });

    #[test]
    fn the_format_is_frozen() {
        let hex = |record: Record| record.encode().map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(
            hex(Record::Ceiling(0x0102_0304_0506_0708)),
            "646c6f636b43763108070605040302010000000000000000000000000000000081096ff0"
        );
        assert_eq!(
            hex(LAST),
            "646c6f636b4c76312a00000000000000e80300000000000007000000000000009fbf602c"
        );
    }

    #[test]
    fn any_flipped_bit_is_seen() {
        for record in [LAST, Record::Ceiling(9)] {
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes), Some(record));
            for bit in 0..LEN * 8 {
                let mut torn = bytes;
                torn[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Record::decode(&torn), None, "bit {bit}");
            }
        }
        assert_eq!(Record::decode(&[0; LEN]), None);
    }
}
