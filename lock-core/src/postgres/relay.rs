//! Leads the driver to one address of a name, where the certificate of the server is looked at by the
//! name: the driver takes a name or an address, and would look for the address in the certificate. So it
//! is given a socket of this process, in a directory that no other user can look into.
//!
//! What goes through is as it was sent, in its order; when one side is closed, so is the other. A lease
//! counts from before its statement was sent, which a way through here makes earlier and never later.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio::io::copy;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::entropy;

/// Takes connections until it is dropped; those that it has taken go on.
pub(super) struct Relay {
    directory: PathBuf,
    taking: JoinHandle<()>,
}

impl Relay {
    /// Leads to this address; its socket has the name that the driver looks for at that port.
    pub(super) fn to(address: SocketAddr) -> io::Result<Self> {
        let unique = entropy::bytes().map_err(io::Error::other)?;
        let unique = format!("distributed-lock-{:032x}", u128::from_ne_bytes(unique));
        let directory = std::env::temp_dir().join(unique);
        DirBuilder::new().mode(0o700).create(&directory)?;
        let socket = directory.join(format!(".s.PGSQL.{}", address.port()));
        let listener = UnixListener::bind(socket).inspect_err(|_| remove(&directory))?;
        let taking = tokio::spawn(async move {
            while let Ok((driver, _)) = listener.accept().await {
                tokio::spawn(lead(driver, address));
            }
        });
        Ok(Self { directory, taking })
    }

    /// Where its socket is.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.taking.abort();
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    // What is left over is an empty directory, or a socket that nothing listens at.
    let _ = fs::remove_dir_all(directory);
}

async fn lead(mut driver: UnixStream, address: SocketAddr) {
    // The driver sees that a connection is closed, whatever the reason.
    if let Ok(mut server) = TcpStream::connect(address).await {
        let _ = server.set_nodelay(true);
        let (mut from_driver, mut to_driver) = driver.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            _ = copy(&mut from_driver, &mut to_server) => {}
            _ = copy(&mut from_server, &mut to_driver) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_way_ends_with_either_side_though_the_other_stays_open() {
        for closes_driver in [true, false] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let (driver, ours) = UnixStream::pair().unwrap();
            let leading = tokio::spawn(lead(ours, listener.local_addr().unwrap()));
            let (server, _) = listener.accept().await.unwrap();
            let (mut driver, mut server) = (Some(driver), Some(server));
            match closes_driver {
                true => drop(driver.take()),
                false => drop(server.take()),
            }
            let ended = timeout(Duration::from_secs(10), leading).await;
            assert!(ended.is_ok(), "it keeps the other one, {closes_driver}");
        }
    }
}
