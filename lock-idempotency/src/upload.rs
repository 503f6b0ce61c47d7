//! The body of a request, read to its end: its hash tells one request from another.

use std::future::poll_fn;
use std::pin::Pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;

use crate::BoxError;

/// Why a body was not read to its end.
pub(crate) enum Refused<B> {
    /// What is left of a body that is larger than allowed.
    TooLarge(Pin<Box<B>>),
    Broken(BoxError),
}

/// Reads a body of up to `limit` bytes. Its pieces are copied: clients choose how small they are, and each
/// can keep a larger buffer of the server alive. Trailers are dropped.
pub(crate) async fn read<B>(body: B, limit: usize) -> Result<Bytes, Refused<B>>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let mut body = Box::pin(body);
    // One that says that it is too large is not read at all.
    if body.size_hint().lower() > limit as u64 {
        return Err(Refused::TooLarge(body));
    }
    let mut read = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) if data.remaining() > limit - read.len() => {
                return Err(Refused::TooLarge(body));
            }
            Ok(Ok(data)) => read.put(data),
            Ok(Err(_trailers)) => {}
            Err(error) => return Err(Refused::Broken(error.into())),
        }
    }
    Ok(read.freeze())
}
