//! A service with the page, and a browser that looks at it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use fantoccini::{Client, ClientBuilder};
use lock_core::LockProvider;
use lock_tests::eventually;
use lock_tests::servers::Chromedriver;
use lock_tower::console::Console;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A service that shows its locks.
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    gate: Arc<Gate>,
}

/// What is before the page.
#[derive(Default)]
struct Gate {
    is_down: AtomicBool,
    /// How many requests have come.
    came: watch::Sender<usize>,
    /// Whether answers are withheld.
    is_shut: watch::Sender<bool>,
}

impl Service {
    pub(crate) async fn start(console: Console) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::<Gate>::default();
        // Below another path, as an application has it.
        let app = axum::Router::new()
            .nest("/internal", console.into_router())
            .layer(from_fn_with_state(Arc::clone(&gate), pass));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, gate }
    }

    pub(crate) async fn of(locks: &LockProvider) -> Self {
        Self::start(Console::new(locks.clone())).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/internal/{path}", self.address)
    }

    /// What programs read.
    pub(crate) async fn json(&self) -> Value {
        let answer = reqwest::get(self.url("locks.json")).await.unwrap();
        answer.json().await.unwrap()
    }

    /// Answers 503 to everything, or not any more.
    pub(crate) fn set_down(&self, is_down: bool) {
        self.gate.is_down.store(is_down, Ordering::Relaxed);
    }

    /// Makes its answers, and withholds them, until [`let_go`](Self::let_go).
    pub(crate) fn withhold(&self) {
        self.gate.is_shut.send_replace(true);
    }

    /// Gives the answers that were withheld.
    pub(crate) fn let_go(&self) {
        self.gate.is_shut.send_replace(false);
    }

    /// Returns when another request has come.
    pub(crate) async fn until_asked(&self) {
        let mut came = self.gate.came.subscribe();
        came.changed().await.unwrap();
    }
}

async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    if gate.is_down.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let answer = next.run(request).await;
    gate.came.send_modify(|came| *came += 1);
    let _ = gate.is_shut.subscribe().wait_for(|is_shut| !is_shut).await;
    answer
}

/// A window of a browser. It ends with its driver.
pub(crate) struct Browser {
    pub(crate) client: Client,
    _driver: Chromedriver,
}

impl Browser {
    pub(crate) async fn open(width: u32, options: &[&str]) -> Self {
        let driver = Chromedriver::start().await;
        let mut arguments = vec![
            "--headless=new".to_owned(),
            // The tests are the sandbox: the browser runs as a user without rights.
            "--no-sandbox".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-gpu".to_owned(),
            "--hide-scrollbars".to_owned(),
            format!("--window-size={width},900"),
        ];
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        let capabilities = json!({ "goog:chromeOptions": {
            "args": arguments,
            // A window of a phone is narrower than one of a desktop can be made.
            "mobileEmulation": { "deviceMetrics": {
                "width": width, "height": 900, "pixelRatio": 1.0, "mobile": false, "touch": false
            } }
        } });
        let Value::Object(capabilities) = capabilities else {
            unreachable!()
        };
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://{}", driver.address()))
            .await
            .unwrap();
        Self {
            client,
            _driver: driver,
        }
    }

    /// One that looks at the page.
    pub(crate) async fn at(service: &Service) -> Self {
        let browser = Self::open(1_200, &[]).await;
        browser.client.goto(&service.url("locks")).await.unwrap();
        browser
    }

    /// What the body of a function gives.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// The text that a person reads there.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let selector = serde_json::to_string(selector).unwrap();
        let text = self
            .run(&format!(
                "const part = document.querySelector({selector}); return part?.checkVisibility() ? part.innerText : ''"
            ))
            .await;
        text.as_str().unwrap().to_owned()
    }

    /// Returns when a person reads this there.
    pub(crate) async fn until_reads(&self, selector: &str, is: impl Fn(&str) -> bool) {
        eventually(selector, || async { is(&self.text(selector).await) }).await;
    }

    /// Returns after the next refresh.
    pub(crate) async fn until_refreshed(&self) {
        let before = self.text("#taken").await;
        self.until_reads("#taken", |taken| taken != before).await;
    }

    /// Keeps what is seen, for people.
    pub(crate) async fn keep_screenshot(&self, name: &str) {
        let picture = self.client.screenshot().await.unwrap();
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("locks-{name}.png"));
        std::fs::write(path, picture).unwrap();
    }
}
