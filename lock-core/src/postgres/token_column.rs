//! A fencing token as a value of type `bigint`.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

use crate::{FencingToken, LockError};

/// Refuses an epoch with which tokens would not fit.
pub(super) fn check_epoch(epoch: u8) -> Result<(), LockError> {
    match epoch {
        ..=126 => Ok(()),
        _ => Err(LockError::misconfigured(
            "a token epoch is 126 at most, since tokens have to fit a bigint",
        )),
    }
}

/// A `bigint`.
impl Type<Postgres> for FencingToken {
    fn type_info() -> PgTypeInfo {
        <i64 as Type<Postgres>>::type_info()
    }
}

/// A `bigint[]`.
impl PgHasArrayType for FencingToken {
    fn array_type_info() -> PgTypeInfo {
        <i64 as PgHasArrayType>::array_type_info()
    }
}

/// Tokens of PostgreSQL and of all other backends here fit; one of 2^63 or more is an error.
impl Encode<'_, Postgres> for FencingToken {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Postgres>>::encode_by_ref(&i64::try_from(self.get())?, buffer)
    }
}

/// A negative number is no token.
impl Decode<'_, Postgres> for FencingToken {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let value = <i64 as Decode<Postgres>>::decode(value)?;
        Ok(Self::new(u64::try_from(value)?))
    }
}
