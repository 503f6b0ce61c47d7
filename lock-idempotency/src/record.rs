//! What is stored of a response.

use std::fmt;

use bytes::{Buf, BufMut, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use lock_core::LockError;

use crate::Fingerprint;

/// The first byte of an encoded record.
const VERSION: u8 = 1;

/// Marks a response that was sent before.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// A response that is kept, and the request that it answers.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    fingerprint: Fingerprint,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Record {
    /// The response to the request with this fingerprint. All of it is kept: layers choose before.
    #[must_use]
    pub fn new(fingerprint: Fingerprint, response: Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            fingerprint,
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    /// The request that it answers.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The response as it was, marked with `Idempotent-Replayed: true`.
    #[must_use]
    pub fn to_response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.body.clone());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.clone();
        let yes = HeaderValue::from_static("true");
        response.headers_mut().insert(REPLAYED, yes);
        response
    }

    /// The record as bytes, for a store. It begins with the version of the encoding; integers are big-endian:
    /// fingerprint (32 bytes), status (2), number of headers (2), then for each the lengths of name (2) and
    /// value (4), name and value; the rest is the body.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(256 + self.body.len());
        bytes.put_u8(VERSION);
        bytes.put_slice(self.fingerprint.as_bytes());
        bytes.put_u16(self.status.as_u16());
        // A map of headers has at most 2^15, of lengths that fit: a server refuses longer ones.
        bytes.put_u16(u16::try_from(self.headers.len()).unwrap_or(u16::MAX));
        for (name, value) in self.headers.iter().take(usize::from(u16::MAX)) {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            bytes.put_u16(u16::try_from(name.len()).unwrap_or(u16::MAX));
            bytes.put_u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
            bytes.put_slice(name);
            bytes.put_slice(value);
        }
        bytes.put_slice(&self.body);
        bytes.into()
    }

    /// The record that [`encode`](Self::encode) made these bytes of.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](lock_core::LockErrorKind::Misconfigured) when they are of another version, or no
    /// record: something else writes to the store.
    pub fn decode(bytes: impl Into<Bytes>) -> Result<Self, LockError> {
        Self::read(bytes.into()).ok_or_else(|| {
            LockError::misconfigured(
                "the store of idempotency keys has a record that this version cannot read; update all \
                 instances, and let nothing else write to the table or under the keys of the store",
            )
        })
    }

    fn read(mut bytes: Bytes) -> Option<Self> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let mut fingerprint = [0; 32];
        bytes.try_copy_to_slice(&mut fingerprint).ok()?;
        let status = StatusCode::from_u16(bytes.try_get_u16().ok()?).ok()?;
        let mut headers = HeaderMap::new();
        for _ in 0..bytes.try_get_u16().ok()? {
            let name = usize::from(bytes.try_get_u16().ok()?);
            let value = usize::try_from(bytes.try_get_u32().ok()?).ok()?;
            if bytes.remaining() < name.checked_add(value)? {
                return None;
            }
            let name = HeaderName::from_bytes(&bytes.split_to(name)).ok()?;
            let value = HeaderValue::from_maybe_shared(bytes.split_to(value)).ok()?;
            headers.try_append(name, value).ok()?;
        }
        Some(Self {
            fingerprint: Fingerprint::from_bytes(fingerprint),
            status,
            headers,
            body: bytes,
        })
    }
}

/// Without what callers were answered.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("status", &self.status)
            .field("headers", &self.headers.len())
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let response = Response::builder()
            .status(201)
            .header("content-type", "application/octet-stream")
            .header("link", "</a>")
            .header("link", "</b>")
            .body(Bytes::from_static(b"\0\xff\r\n"))
            .expect("a response");
        Record::new(Fingerprint::from_bytes([7; 32]), response)
    }

    #[test]
    fn a_record_survives_its_encoding() {
        let record = record();
        assert_eq!(Record::decode(record.encode()).expect("a record"), record);
        let replayed = record.to_response();
        assert_eq!(replayed.headers().get_all("link").iter().count(), 2);
        assert_eq!(replayed.headers()["idempotent-replayed"], "true");
        assert_eq!(replayed.body(), &b"\0\xff\r\n"[..]);
    }

    #[test]
    fn bytes_that_are_no_record_are_an_error() {
        let bytes = record().encode();
        let head = bytes.len() - 4;
        for length in 0..head {
            assert!(
                Record::decode(bytes.slice(..length)).is_err(),
                "{length} bytes"
            );
        }
        // More headers than a map can have: one that counts them itself panics.
        let mut crowded = bytes[..35].to_vec();
        crowded.put_u16(u16::MAX);
        for number in 0..u32::from(u16::MAX) {
            crowded.put_slice(&[0, 8, 0, 0, 0, 0]);
            crowded.put_slice(format!("h{number:07}").as_bytes());
        }
        assert!(Record::decode(crowded).is_err());
        let mut other = bytes.to_vec();
        other[0] = VERSION + 1;
        assert!(
            Record::decode(other)
                .expect_err("another version")
                .is_misconfigured()
        );
    }
}
