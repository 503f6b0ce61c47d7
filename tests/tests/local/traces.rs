//! What traces show of locks: a span for each acquisition and hold, and no value of a name.

#![allow(clippy::unwrap_used, reason = "what does not hold in a test ends it")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lock_core::{LockPolicy, LockProvider, LockSettings, LossReason, ProviderKind};
use lock_tests::abandon;
use lock_tests::scripted_backend::{Play, ScriptedBackend};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// What is in every name here, and in nothing else.
const SECRET: &str = "hunter2";

/// Everything that was logged, at every level.
#[derive(Clone, Default)]
struct Tape(Arc<Mutex<Vec<Told>>>);

#[derive(Clone, Debug)]
struct Told {
    what: &'static str,
    level: Level,
    id: Option<u64>,
    parent: Option<u64>,
    is_closed: bool,
    fields: BTreeMap<String, String>,
}

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }
}

impl Tape {
    fn change(&self, id: &Id, change: impl FnOnce(&mut Told)) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = Some(id.into_u64());
        change(told.iter_mut().rfind(|told| told.id == id).unwrap());
    }

    fn all(&self) -> Vec<Told> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn spans(&self, what: &str) -> Vec<Told> {
        let mut all = self.all();
        all.retain(|told| told.what == what && told.id.is_some());
        all
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Tape {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        attributes.record(&mut Fields(&mut fields));
        let parent = cx
            .span(id)
            .and_then(|span| span.parent().map(|parent| parent.id()));
        self.0.lock().unwrap().push(Told {
            what: attributes.metadata().name(),
            level: *attributes.metadata().level(),
            id: Some(id.into_u64()),
            parent: parent.map(|id| id.into_u64()),
            is_closed: false,
            fields,
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.change(id, |told| values.record(&mut Fields(&mut told.fields)));
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = BTreeMap::new();
        event.record(&mut Fields(&mut fields));
        self.0.lock().unwrap().push(Told {
            what: "event",
            level: *event.metadata().level(),
            id: None,
            parent: None,
            is_closed: false,
            fields,
        });
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        self.change(&id, |told| told.is_closed = true);
    }
}

/// Everything that can happen to a lock, but a lost one.
async fn live(locks: &LockProvider, scripted: &ScriptedBackend) {
    let lock = locks.lock(format!("order:process:{SECRET}")).unwrap();
    let guard = lock.acquire(LockPolicy::user_request()).await.unwrap();
    // Contended, in line and at the end of a wait.
    assert!(lock.try_acquire(Duration::ZERO).await.unwrap().is_none());
    let wait = Duration::from_millis(20);
    assert!(lock.try_acquire(wait).await.unwrap().is_none());
    assert!(guard.protect(async {}).await.is_ok());
    guard.release().await.unwrap();

    scripted.every_try(Play::FailLate(Duration::from_millis(1), "down"));
    let error = lock.acquire(Duration::ZERO).await.unwrap_err();
    assert!(error.is_unavailable());
    scripted.behave();
    scripted.every_release(Play::FailLate(Duration::from_millis(1), "down"));
    let unreleased = locks.lock(format!("order:export:{SECRET}")).unwrap();
    unreleased.run(Duration::ZERO, async {}).await.unwrap();
    scripted.behave();

    let claimed = locks.claim([format!("order:process:{SECRET}2")], 1).await;
    drop(claimed.unwrap());
    let all = [format!("a:b:{SECRET}"), format!("c:d:{SECRET}")];
    drop(locks.acquire_all(all, Duration::ZERO).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn no_name_is_shown_above_debug_and_all_of_it_there() {
    let tape = Tape::default();
    let subscriber = tracing_subscriber::registry().with(tape.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let scripted = ScriptedBackend::new();
    let locks = scripted.client();
    live(&locks, &scripted).await;

    // And one that is lost, kept past its end, and shut down with.
    let name = format!("order:process:{SECRET}").parse().unwrap();
    let guard = locks.lock(format!("order:process:{SECRET}")).unwrap();
    let guard = guard.acquire(Duration::ZERO).await.unwrap();
    scripted.lose(&name, LossReason::Disconnected);
    assert!(
        guard
            .protect(std::future::pending::<()>())
            .await
            .unwrap_err()
            .is_lost()
    );
    locks.shutdown(Duration::ZERO).await;
    drop(guard);

    let told = tape.all();
    let names = told.iter().filter(|told| {
        let shows = |value: &String| value.contains(SECRET);
        told.fields.values().any(shows)
    });
    let mut shown = 0;
    for told in names {
        assert!(told.level > Level::INFO, "{told:#?}");
        shown += 1;
    }
    // Each of the eight that were asked for alone or as one of all.
    assert_eq!(shown, 8, "{told:#?}");
    assert!(
        told.iter().any(|told| told.level == Level::ERROR),
        "the loss was told"
    );
}

#[tokio::test(start_paused = true)]
async fn each_acquisition_and_each_hold_has_a_span_that_says_how_it_ended() {
    let tape = Tape::default();
    let subscriber = tracing_subscriber::registry().with(tape.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let scripted = ScriptedBackend::new();
    let locks = scripted.client();
    let request = tracing::info_span!("request");
    let lock = locks.lock("order:process:42").unwrap();
    {
        use tracing::Instrument;

        let held = async {
            let guard = lock.acquire(Duration::from_secs(5)).await.unwrap();
            assert!(
                lock.try_acquire(Duration::from_millis(20))
                    .await
                    .unwrap()
                    .is_none()
            );
            guard.release().await.unwrap();
        };
        held.instrument(request.clone()).await;
    }
    let other = locks.lock("order:process:43").unwrap();
    let guard = other.acquire(Duration::ZERO).await.unwrap();
    scripted.lose(other.name(), LossReason::Revoked);
    assert!(!guard.is_valid());
    drop(guard);
    tokio::time::sleep(Duration::from_millis(1)).await;

    let acquired = tape.spans("distributed_lock.acquire");
    let shown: Vec<_> = acquired
        .iter()
        .map(|span| {
            ["lock", "backend", "wait_ms", "waited_ms", "outcome"].map(|field| &*span.fields[field])
        })
        .collect();
    assert_eq!(
        shown,
        [
            ["order:process", "scripted", "5000", "0", "acquired"],
            ["order:process", "scripted", "20", "20", "contended"],
            ["order:process", "scripted", "0", "0", "acquired"],
        ]
    );
    let held = tape.spans("distributed_lock.hold");
    let shown: Vec<_> = held
        .iter()
        .map(|span| ["lock", "backend", "held_ms", "outcome"].map(|field| &*span.fields[field]))
        .collect();
    assert_eq!(
        shown,
        [
            ["order:process", "scripted", "20", "released"],
            ["order:process", "scripted", "0", "lost"],
        ]
    );
    for span in acquired.iter().chain(&held) {
        assert!(span.is_closed, "{span:#?}");
    }
    // Both belong to the request, and neither to the other: a wait ends with the grant.
    let request = request.id().map(|id| id.into_u64());
    assert!(
        acquired[..2]
            .iter()
            .chain(&held[..1])
            .all(|span| span.parent == request)
    );
    // One lock is told from another, and known again.
    let key = |span: &Told| span.fields["key"].clone();
    assert_eq!(key(&acquired[0]), key(&held[0]));
    assert_ne!(key(&acquired[0]), key(&acquired[2]));
}

#[tokio::test]
async fn a_trace_does_not_decide_which_secret_a_process_has() {
    let subscriber = tracing_subscriber::registry().with(Tape::default());
    let _default = tracing::subscriber::set_default(subscriber);
    let (scripted, dir) = (ScriptedBackend::new(), tempfile::tempdir().unwrap());
    live(&scripted.client(), &scripted).await;
    let settings = LockSettings::new()
        .provider(ProviderKind::File)
        .dir(dir.path().join("locks"))
        .name_secret(SECRET);
    LockProvider::connect(settings).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_claim_has_one_span_and_a_hold_for_each_lock() {
    let tape = Tape::default();
    let subscriber = tracing_subscriber::registry().with(tape.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let scripted = ScriptedBackend::new();
    let locks = scripted.client();
    let names = ["order:process:1", "order:process:2", "order:process:3"];
    scripted.every_try(Play::Late(Duration::from_millis(10)));
    let two = locks.claim(names, 2).await.unwrap();
    scripted.every_try(Play::Fail("down"));
    assert!(locks.claim(names, 2).await.unwrap_err().is_unavailable());
    scripted.every_try(Play::Hang);
    assert!(abandon(locks.claim(names, 2), 1).await.is_none());
    drop(two);

    let claims = tape.spans("distributed_lock.claim");
    let fields = [
        "names",
        "limit",
        "backend",
        "granted",
        "waited_ms",
        "outcome",
    ];
    let shown: Vec<_> = claims
        .iter()
        .map(|span| fields.map(|field| span.fields.get(field).map_or("", String::as_str)))
        .collect();
    assert_eq!(
        shown,
        [
            ["3", "2", "scripted", "2", "20", "acquired"],
            ["3", "2", "scripted", "", "0", "unavailable"],
            ["3", "2", "scripted", "", "0", "cancelled"],
        ]
    );
    assert!(claims.iter().all(|span| span.is_closed), "{claims:#?}");
    let holds = tape.spans("distributed_lock.hold");
    assert_eq!(holds.len(), 2);
    assert!(holds.iter().all(|span| span.parent.is_none()), "{holds:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_acquisition_that_is_dropped_says_so() {
    let tape = Tape::default();
    let subscriber = tracing_subscriber::registry().with(tape.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let scripted = ScriptedBackend::new();
    let lock = scripted.client().lock("order:process:42").unwrap();
    scripted.every_try(Play::Hang);
    let minute = Duration::from_secs(60);
    assert!(abandon(lock.acquire(minute), 1).await.is_none());
    let spans = tape.spans("distributed_lock.acquire");
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].fields["outcome"], "cancelled");
    assert!(spans[0].is_closed);
}
