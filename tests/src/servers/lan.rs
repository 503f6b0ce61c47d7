//! Networks of a test: namespaces of the kernel, and a router between them.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::Stdio;

use rustix::process::getuid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::guardian::Guardian;

/// Two hosts, `left` and `right`, with a router between them that can go silent. It needs root.
///
/// What is lost is lost in the router: neither host can tell, its own link stays up, and no kernel
/// acknowledges what does not arrive, as that of a [`Proxy`](super::Proxy) does.
#[derive(Debug)]
pub struct Lan {
    left: NetworkNamespace,
    right: NetworkNamespace,
    router: String,
    /// Removes the namespaces, which lets go of the links.
    _guardian: Guardian,
}

/// One host of a [`Lan`].
#[derive(Clone, Debug)]
pub struct NetworkNamespace {
    name: String,
    address: Ipv4Addr,
    gateway: Ipv4Addr,
}

impl Lan {
    /// Makes the namespaces and joins them.
    pub async fn new() -> Self {
        assert!(getuid().is_root(), "network namespaces need root");
        let guardian = Guardian::start();
        // No other process has a directory of that name.
        let unique = guardian.directory().file_name().unwrap();
        let name = |role| format!("{}-{role}", unique.display());
        // The networks are set aside for documentation, and exist in these namespaces alone.
        let host = |role, network: [u8; 3]| {
            let [a, b, c] = network;
            NetworkNamespace {
                name: name(role),
                address: Ipv4Addr::new(a, b, c, 2),
                gateway: Ipv4Addr::new(a, b, c, 1),
            }
        };
        let left = host("left", [192, 0, 2]);
        let right = host("right", [198, 51, 100]);
        let router = name("router");
        for namespace in [&left.name, &right.name, &router] {
            let command = |verb: &str| ["ip", "netns", verb, namespace].map(Into::into).into();
            guardian.finally(command("delete"));
            guardian.run(command("add")).await;
        }
        let mut lines = "link set lo up\n".to_owned();
        for (NetworkNamespace { name, gateway, .. }, link) in [(&left, "left"), (&right, "right")] {
            lines += &format!(
                "link add {link} type veth peer name eth0 netns {name}\n\
                 address add {gateway}/24 dev {link}\nlink set {link} up\n"
            );
        }
        ip(&router, &lines).await;
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        succeed(inside(&router, "sh").args(["-c", forward])).await;
        for NetworkNamespace {
            name,
            address,
            gateway,
        } in [&left, &right]
        {
            let lines = format!(
                "link set lo up\naddress add {address}/24 dev eth0\nlink set eth0 up\n\
                 route add default via {gateway}\n"
            );
            ip(name, &lines).await;
        }
        Self {
            left,
            right,
            router,
            _guardian: guardian,
        }
    }

    /// The one host.
    #[must_use]
    pub fn left(&self) -> &NetworkNamespace {
        &self.left
    }

    /// The other host.
    #[must_use]
    pub fn right(&self) -> &NetworkNamespace {
        &self.right
    }

    /// From now on nothing arrives, in either direction.
    pub async fn down(&self) {
        self.down_towards(&self.left).await;
        self.down_towards(&self.right).await;
    }

    /// From now on nothing arrives at this host; what it sends does.
    pub async fn down_towards(&self, host: &NetworkNamespace) {
        let hole = format!("route replace blackhole {}/32\n", host.address);
        ip(&self.router, &hole).await;
    }

    /// From now on everything arrives.
    pub async fn up(&self) {
        ip(&self.router, "route flush type blackhole\n").await;
    }
}

impl NetworkNamespace {
    /// What `ip netns` calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address in the network.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// A program that runs in it once it is started.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        inside(&self.name, program)
    }

    /// Runs a future to its end on a thread and in a runtime whose sockets, and those of the threads
    /// that they start, are in it.
    pub async fn run<T, F>(&self, future: F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        let (result, ran) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            // The test may have ended meanwhile.
            let _ = result.send(runtime.unwrap().block_on(future));
        });
        match ran.await {
            Ok(result) => result,
            Err(_) => std::panic::resume_unwind(thread.join().expect_err("it sent nothing")),
        }
    }
}

fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

async fn ip(namespace: &str, lines: &str) {
    let mut command = Command::new("ip");
    let command = command.args(["-netns", namespace, "-batch", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .await
        .unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{lines}: {output:?}");
}

async fn succeed(command: &mut Command) {
    let output = command
        .output()
        .await
        .expect("iproute2 is installed: tests/run does it");
    assert!(output.status.success(), "{command:?}: {output:?}");
}
