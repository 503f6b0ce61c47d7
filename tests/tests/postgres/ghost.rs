//! A holder that stands still where no other does.

use lock_core::LockName;
use lock_tests::servers::PostgresServer;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::key;

/// A client that speaks the protocol by itself, and stops where no other does.
pub(crate) struct Ghost(TcpStream);

impl Ghost {
    /// One that holds this lock as the library does.
    pub(crate) async fn holding(
        server: &PostgresServer,
        application_name: &str,
        lease: &str,
        name: &LockName,
    ) -> Self {
        Self::holding_as("postgres", server, application_name, lease, name).await
    }

    /// The same as this role.
    pub(crate) async fn holding_as(
        role: &str,
        server: &PostgresServer,
        application_name: &str,
        lease: &str,
        name: &LockName,
    ) -> Self {
        let mut client = Self(TcpStream::connect(server.address()).await.unwrap());
        let mut startup = 196_608_u32.to_be_bytes().to_vec();
        for text in [
            "user",
            role,
            "database",
            "postgres",
            "application_name",
            application_name,
            "",
        ] {
            startup.extend_from_slice(text.as_bytes());
            startup.push(0);
        }
        client.send(&startup).await;
        client.until_ready().await;
        let digest = Sha256::digest(format!("lock-postgres-v1\0\0{lease}"));
        let marker = i64::from_be_bytes(digest[..8].try_into().unwrap());
        let lock = format!(
            "SELECT pg_advisory_lock({}), pg_advisory_lock_shared({marker})\0",
            key("", name)
        );
        client.0.write_all(b"Q").await.unwrap();
        client.send(lock.as_bytes()).await;
        client.until_ready().await;
        client
    }

    /// Begins a statement and does not end it.
    pub(crate) async fn stop_inside_a_statement(&mut self) {
        self.0.write_all(b"P").await.unwrap();
        self.send(b"\0SELECT 1\0\0\0").await;
    }

    /// Sends what a message has after its kind.
    async fn send(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len() + 4).unwrap();
        self.0.write_all(&length.to_be_bytes()).await.unwrap();
        self.0.write_all(body).await.unwrap();
    }

    /// Reads to the message that says that the server waits for a query.
    async fn until_ready(&mut self) {
        loop {
            let kind = self.0.read_u8().await.unwrap();
            let length = self.0.read_u32().await.unwrap();
            let mut body = vec![0; length as usize - 4];
            self.0.read_exact(&mut body).await.unwrap();
            match kind {
                b'E' => panic!("{}", String::from_utf8_lossy(&body)),
                b'Z' => return,
                _ => {}
            }
        }
    }
}
