//! What an instance says when it starts.

use std::io::{IsTerminal, Write, stdout};
use std::net::SocketAddr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Logs at `info` unless `RUST_LOG` says otherwise, without the server's notices of tables that exist.
pub(crate) fn init_logging() -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy()
        .add_directive("sqlx::postgres::notice=warn".parse()?);
    let colours = stdout().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .init();
    Ok(())
}

/// Tells the person at the terminal, if there is one, what to try.
pub(crate) fn greet(address: SocketAddr) {
    let _ = writeln!(
        stdout(),
        "Listening on http://{address}. Try these, each in two terminals at the same time:
  curl -i -X POST 'http://{address}/payments/7/refund?work_ms=5000'    # the second is refused: 409
  curl -i -X POST 'http://{address}/orders/1/process?work_ms=2000'     # the second waits for the first
  curl -i -X POST 'http://{address}/payments/8/refund?work_ms=2000' -H 'idempotency-key: 1' --oauth2-bearer ann
  curl -i 'http://{address}/accounts/transfer?work_ms=2000' -H 'content-type: application/json' -d '{{\"from\":\"alice\",\"to\":\"bob\",\"amount\":5}}'
Who holds what: http://{address}/locks"
    );
}
