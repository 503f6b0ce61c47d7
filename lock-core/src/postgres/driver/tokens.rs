//! Fencing tokens.
//!
//! A token is `epoch << 56 | timeline << 48 | transaction`: the number of a transaction that began
//! after the lock was ours, and whose commit is on disk. Numbers of transactions grow, also across a
//! crash, since the commit was waited for; a standby that is promoted without having seen the last of
//! them starts a timeline with a greater number; where the locks move to another server, the operator
//! raises the epoch.

use super::Driver;
use crate::LockError;
use crate::postgres::held::{Hold, HoldCommand};
use crate::postgres::session::{Failed, Session, value};
use crate::postgres::statement::Statement;
use crate::postgres::{errors, sql};
use crate::server::Reply;

impl Driver {
    /// Issues all tokens that were asked for. Tells whether there were any.
    ///
    /// One transaction does for all of them: it begins after each of their locks was taken, and
    /// tokens of different locks need not differ.
    pub(super) async fn run_tokens(&mut self, session: &mut Session) -> Result<bool, Failed> {
        let token = |command: &mut HoldCommand| matches!(command, HoldCommand::Token { .. });
        let asked: Vec<(Hold, Reply<u64>)> = (self.of_grants.extract_if(.., token))
            .filter_map(|command| match command {
                HoldCommand::Token { hold, reply } => Some((hold, reply)),
                _ => None,
            })
            .collect();
        if asked.is_empty() {
            return Ok(false);
        }
        let (asked, stale): (Vec<_>, Vec<_>) = asked
            .into_iter()
            .partition(|(hold, _)| self.is_held_by(*hold));
        for (_, reply) in stale {
            let _ = reply.send(Err(errors::not_ours()));
        }
        if asked.is_empty() {
            return Ok(true);
        }
        let answer = session
            .run(
                &*self.shared,
                const { Statement::new(sql::TOKEN) },
                |token| token,
            )
            .await;
        let token = match answer {
            Ok(rows) => match rows.first() {
                Some(row) => compose(self.config.token_epoch, value(row, 2)?, value(row, 3)?),
                None => Err(errors::disconnected()),
            },
            Err(Failed::Statement(error)) => Err(errors::statement(error, session.limits)),
            // The replies are dropped, and waiters learn that the connection is gone.
            Err(lost) => return Err(lost),
        };
        for (_, reply) in asked {
            let token = match &token {
                Ok(token) => Ok(*token),
                Err(error) => Err(error.duplicate()),
            };
            let _ = reply.send(token);
        }
        Ok(true)
    }
}

/// Sums and not bits side by side: a timeline that outgrows its field still makes greater tokens.
fn compose(epoch: u8, timeline: i64, transaction: i64) -> Result<u64, LockError> {
    let token = (i64::from(epoch) << 56)
        .checked_add(timeline.checked_mul(1 << 48).unwrap_or(i64::MAX))
        .and_then(|token| token.checked_add(transaction))
        .and_then(|token| u64::try_from(token).ok());
    token.ok_or_else(|| {
        LockError::misconfigured("tokens have grown past a bigint; lower the token epoch")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ones_are_greater() {
        let tokens = [
            compose(0, 1, 700).unwrap(),
            compose(0, 1, (1 << 48) - 1).unwrap(),
            compose(0, 2, 3).unwrap(),
            compose(0, 255, 3).unwrap(),
            compose(1, 1, 3).unwrap(),
            compose(126, 1, 3).unwrap(),
        ];
        assert!(tokens.is_sorted_by(|one, next| one < next), "{tokens:?}");
        assert_eq!(tokens[2], (2 << 48) + 3);
        assert!(i64::try_from(tokens[5]).is_ok());
    }

    #[test]
    fn a_token_never_wraps() {
        assert!(compose(126, i64::from(u32::MAX), 1).is_err());
        assert!(compose(0, i64::MAX, 1).is_err());
        assert!(compose(0, 0, -1).is_err() && compose(0, i64::MIN, i64::MIN).is_err());
    }
}
