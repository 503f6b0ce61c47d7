//! Instances of the example service `orders` as processes of their own, and a client for them.
//!
//! What it does wherever its locks are is in [`cases`].

mod answer;
pub mod cases;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lock_core::file::FileBackend;
use lock_core::{LockName, LockProvider};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, RequestBuilder};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::Notify;

pub use answer::{Answer, Receipt, assert_one_at_a_time};

use crate::eventually;
use crate::examples::program;

/// Longer than anything here takes on a busy machine; what takes longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long the service waits for a lock before it refuses a request.
pub const WAIT: Duration = Duration::from_secs(5);

/// The binary, built with the profile of the tests.
static BINARY: LazyLock<PathBuf> = LazyLock::new(|| program("orders"));

/// What decides where locks are; nothing of it comes from the environment of the tests.
const SETTINGS: [&str; 10] = [
    "DATABASE_URL",
    "REDIS_URL",
    "LOCK_PROVIDER",
    "LOCK_NAMESPACE",
    "LOCK_INSTANCE",
    "LOCK_LEASE",
    "LOCK_TABLE",
    "LOCK_NAME_SECRET",
    "LOCK_SWITCH",
    "LOCK_MARKER",
];

/// A lock directory that the instances of one test share.
#[derive(Debug)]
pub struct Shop {
    base: TempDir,
}

impl Shop {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self {
            base: TempDir::new().expect("a temporary directory"),
        }
    }

    /// Where the lock files are.
    #[must_use]
    pub fn lock_dir(&self) -> PathBuf {
        self.base.path().join("locks")
    }

    /// Another instance; returns when it listens.
    pub async fn open(&self) -> Instance {
        self.open_with(&[]).await
    }

    /// As [`open`](Self::open), with more environment.
    pub async fn open_with(&self, environment: &[(&str, &str)]) -> Instance {
        Instance::start(&self.lock_dir(), environment).await
    }

    /// The locks of the instances, as one more process would see them.
    #[must_use]
    pub fn locks(&self) -> LockProvider {
        LockProvider::new(FileBackend::open(self.lock_dir()).expect("the lock directory opens"))
    }

    /// Returns when the lock is held. The look takes nothing, so that no request is in its way.
    pub async fn until_held(&self, name: &LockName) {
        let locks = self.locks();
        eventually("the lock is held", async || {
            let holder = locks.holder(name.clone()).await.expect("files work");
            holder.is_some()
        })
        .await;
    }
}

impl Default for Shop {
    fn default() -> Self {
        Self::new()
    }
}

/// A running instance. Dropping it kills it.
#[derive(Debug)]
pub struct Instance {
    child: Child,
    pid: Pid,
    address: SocketAddr,
    output: Arc<Output>,
    client: Client,
}

impl Instance {
    async fn start(lock_dir: &Path, environment: &[(&str, &str)]) -> Self {
        let mut child = command(lock_dir, environment)
            .spawn()
            .expect("orders starts");
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .expect("it has just started");
        let output = Arc::new(Output::default());
        let stdout = child.stdout.take().expect("its output is piped");
        tokio::spawn(Arc::clone(&output).read(stdout));
        let greeting = output.wait_for("Listening on http://").await;
        let (_, rest) = greeting.split_once("http://").expect("it was searched for");
        let address = rest.split(". ").next().expect("a split has a first part");
        // Proxies of the environment have no business here.
        let client = Client::builder()
            .no_proxy()
            .build()
            .expect("a client needs nothing");
        Self {
            child,
            pid,
            address: address.parse().expect("the greeting tells the address"),
            output,
            client,
        }
    }

    /// The id of the process, which its answers carry.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `POST path`; answered or not within [`PATIENCE`].
    pub async fn post(&self, path: &str) -> Answer {
        self.send(self.client.post(self.url(path))).await
    }

    /// `POST path`, and again when it is refused because it has waited for its lock in vain: a crowd of
    /// requests for one lock can take longer than the service has one of them wait, on a slow machine.
    pub async fn post_in_a_crowd(&self, path: &str) -> Answer {
        served_in_a_crowd(async || self.post(path).await).await
    }

    /// The same of [`transfer`](Self::transfer).
    pub async fn transfer_in_a_crowd(&self, from: &str, to: &str, work_ms: u64) -> Answer {
        served_in_a_crowd(async || self.transfer(from, to, work_ms).await).await
    }

    /// The same of a caller, with an `Idempotency-Key`.
    pub async fn post_once(&self, path: &str, caller: &str, key: &str) -> Answer {
        let request = self.client.post(self.url(path)).bearer_auth(caller);
        self.send(request.header("idempotency-key", key)).await
    }

    /// `PUT path` with this body.
    pub async fn put(&self, path: &str, body: &serde_json::Value) -> Answer {
        self.send(self.client.put(self.url(path)).json(body)).await
    }

    /// `POST /accounts/transfer`.
    pub async fn transfer(&self, from: &str, to: &str, work_ms: u64) -> Answer {
        let url = self.url(&format!("/accounts/transfer?work_ms={work_ms}"));
        let body = serde_json::json!({ "from": from, "to": to, "amount": 5 });
        self.send(self.client.post(url).json(&body)).await
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(self.url(path))).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn send(&self, request: RequestBuilder) -> Answer {
        let sent = Instant::now();
        let response = request.timeout(PATIENCE).send().await.expect("an answer");
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(value.to_str().expect("a header is text").to_owned())
        };
        let (status, content_type, retry_after) = (
            response.status().as_u16(),
            header(CONTENT_TYPE),
            header(RETRY_AFTER),
        );
        let is_replay = response.headers().contains_key("idempotent-replayed");
        let body = response.text().await.expect("the answer has an end");
        Answer {
            is_replay,
            status,
            content_type,
            retry_after,
            body,
            took: sent.elapsed(),
        }
    }

    /// Sends a `POST` and does not wait for the answer; dropping the connection is a
    /// client that leaves.
    pub async fn begin_post(&self, path: &str, json: &str) -> TcpStream {
        self.begin_request("POST", path, json).await
    }

    /// The same with any method.
    pub async fn begin_request(&self, method: &str, path: &str, json: &str) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).await.expect("it listens");
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{json}",
            self.address,
            json.len(),
        );
        connection
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        connection
    }

    /// Sends a signal: `Signal::STOP` freezes it, `Signal::CONT` thaws it.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("it runs, or was not waited for");
    }

    /// Freezes it, and returns when none of its threads runs.
    pub async fn freeze(&self) {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.id());
        eventually("it stands still", async || {
            let stat = std::fs::read_to_string(&stat).expect("it was not waited for");
            stat.rsplit_once(") ")
                .is_some_and(|(_, state)| state.starts_with('T'))
        })
        .await;
    }

    /// Waits for its end.
    pub async fn wait(&mut self) -> ExitStatus {
        let wait = self.child.wait();
        let exit = tokio::time::timeout(PATIENCE, wait).await.expect("it ends");
        exit.expect("it is a child of this process")
    }

    /// The first line of its output that contains `text`, when there is one.
    pub async fn until_printed(&self, text: &str) -> String {
        self.output.wait_for(text).await
    }

    /// What it has printed so far.
    #[must_use]
    pub fn printed(&self) -> Vec<String> {
        self.output
            .lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Sends until it is not refused for its wait.
async fn served_in_a_crowd(send: impl AsyncFn() -> Answer) -> Answer {
    loop {
        let answer = send().await;
        if answer.status != 409 || answer.conflict()["reason"] != "lock-wait-timeout" {
            return answer;
        }
        assert!(answer.took >= WAIT, "it was refused too early: {answer:#?}");
    }
}

/// The binary with its environment, not started yet.
#[must_use]
pub fn command(lock_dir: &Path, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(&*BINARY);
    for variable in SETTINGS {
        command.env_remove(variable);
    }
    command
        .env("BIND", "127.0.0.1:0")
        .env("LOCK_DIR", lock_dir)
        .env_remove("RUST_LOG")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// What an instance prints.
#[derive(Debug, Default)]
struct Output {
    lines: Mutex<Vec<String>>,
    more: Notify,
}

impl Output {
    async fn read(self: Arc<Self>, stdout: ChildStdout) {
        let mut lines = BufReader::new(stdout).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            self.lines
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
            self.more.notify_waiters();
        }
    }

    async fn wait_for(&self, text: &str) -> String {
        let found = async {
            loop {
                let more = self.more.notified();
                let lines = self
                    .lines
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                if let Some(line) = lines.into_iter().find(|line| line.contains(text)) {
                    return line;
                }
                more.await;
            }
        };
        match tokio::time::timeout(PATIENCE, found).await {
            Ok(line) => line,
            Err(_) => panic!("{text:?} was not printed, but: {:#?}", self.lines),
        }
    }
}
