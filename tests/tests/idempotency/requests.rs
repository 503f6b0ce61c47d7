//! What a key, a caller, a route and a payload make of a request.

use axum::http::HeaderName;
use reqwest::Method;

use crate::support::{Answer, KEY, Service, layer};

#[tokio::test]
async fn a_request_that_is_sent_again_is_answered_as_before() {
    let service = Service::start(layer()).await;
    let first = Answer::of(service.payment()).await;
    assert_eq!(
        (first.status, first.is_replay(), service.runs()),
        (201, false, 1)
    );
    assert_eq!(first.headers["set-cookie"], "run=1");
    for _ in 0..3 {
        let again = Answer::of(service.payment()).await;
        assert_eq!(
            (again.status, again.is_replay(), service.runs()),
            (201, true, 1)
        );
        assert_eq!(
            (&again.headers["location"], &again.body),
            (&first.headers["location"], &first.body)
        );
        assert!(!again.headers.contains_key("set-cookie"), "{again:?}");
    }
    // The draft's form of the same key.
    let quoted = service.with_key(&format!("\"{KEY}\"")).body("500 cents");
    assert!(Answer::of(quoted).await.is_replay());
    let other = Answer::of(service.with_key("another").body("500 cents")).await;
    assert_eq!((other.is_replay(), service.runs()), (false, 2));
}

#[tokio::test]
async fn another_payload_or_path_under_the_key_is_422() {
    let service = Service::start(layer()).await;
    Answer::of(service.payment()).await;
    let refund = |path: &str| {
        service
            .request(Method::POST, path)
            .header("idempotency-key", KEY)
    };
    let others = [
        service.with_key(KEY).body("501 cents"),
        service.with_key(KEY).body(""),
        service
            .request(Method::POST, "/payments?force=1")
            .header("idempotency-key", KEY)
            .body("500 cents"),
        service
            .request(Method::PUT, "/payments")
            .header("idempotency-key", KEY)
            .body("500 cents"),
    ];
    for other in others {
        let answer = Answer::of(other).await;
        assert_eq!(
            (answer.status, &*answer.reason()),
            (422, "idempotency-key-reused")
        );
        assert!(String::from_utf8_lossy(&answer.body).contains(r#""instance":"/payments""#));
    }
    assert_eq!(service.runs(), 1);
    // Another route has keys of its own; another payment of that route is another request.
    assert_eq!(Answer::of(refund("/payments/7/refund")).await.status, 201);
    assert_eq!(Answer::of(refund("/payments/8/refund")).await.status, 422);
    assert!(Answer::of(refund("/payments/7/refund")).await.is_replay());
    assert_eq!(service.runs(), 2);
}

#[tokio::test]
async fn another_caller_with_the_key_has_an_answer_of_its_own() {
    let service = Service::start(layer()).await;
    let url = format!("http://{}/payments", service.address);
    let of = |user: &str| {
        let request = reqwest::Client::new().post(&url).body("500 cents");
        request
            .header("idempotency-key", KEY)
            .header("x-user", user)
    };
    for (user, place) in [
        ("ann", "/payments/1"),
        ("bob", "/payments/2"),
        ("an", "/payments/3"),
    ] {
        let first = Answer::of(of(user)).await;
        assert_eq!(
            (first.is_replay(), &first.headers["location"]),
            (false, &place.parse().unwrap())
        );
        assert_eq!(Answer::of(of(user)).await.headers["location"], place);
    }
    let unknown = Answer::of(
        reqwest::Client::new()
            .post(&url)
            .header("idempotency-key", KEY),
    )
    .await;
    assert_eq!(
        (unknown.status, &*unknown.reason()),
        (400, "idempotency-scope-missing")
    );
    assert_eq!(service.runs(), 3);
}

#[tokio::test]
async fn a_key_that_is_missing_or_malformed_is_400() {
    let free = Service::start(layer()).await;
    let strict = Service::start(layer().required()).await;
    for runs in 1..=2 {
        Answer::of(free.request(Method::POST, "/payments")).await;
        assert_eq!(free.runs(), runs);
    }
    let missing = Answer::of(strict.request(Method::POST, "/payments").body("x")).await;
    assert_eq!(
        (missing.status, &*missing.reason()),
        (400, "idempotency-key-missing")
    );
    let says = String::from_utf8_lossy(&missing.body);
    assert!(says.contains("the header `idempotency-key`"), "{says}");
    let long = "k".repeat(256);
    for bad in ["", "\"open", "two words", &long] {
        for service in [&free, &strict] {
            let answer = Answer::of(service.with_key(bad)).await;
            assert_eq!(
                (answer.status, &*answer.reason()),
                (400, "idempotency-key-invalid"),
                "{bad}"
            );
        }
    }
    let two = Answer::of(free.with_key("a").header("idempotency-key", "a")).await;
    assert_eq!((two.status, free.runs(), strict.runs()), (400, 2, 0));
}

#[tokio::test]
async fn methods_that_change_nothing_are_left_alone() {
    let service = Service::start(layer().required()).await;
    let mut runs = 0;
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        for _ in 0..2 {
            runs += 1;
            let request = service.request(method.clone(), "/payments");
            let answer = Answer::of(request.header("idempotency-key", KEY)).await;
            assert_eq!(
                (answer.status, answer.is_replay(), service.runs()),
                (201, false, runs)
            );
        }
    }
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        assert_eq!(
            Answer::of(service.request(method, "/payments"))
                .await
                .status,
            400
        );
    }
}

#[tokio::test]
async fn a_status_that_says_nothing_was_done_runs_again() {
    let service = Service::start(layer()).await;
    let send = |status: u16| {
        let request = service.with_key(&format!("key-{status}")).body("x");
        Answer::of(request.header("x-status", status.to_string()))
    };
    for (statuses, is_kept) in [
        (&[200, 201, 204, 303, 400, 403, 404, 410, 422][..], true),
        (
            &[401, 408, 409, 421, 423, 425, 429, 500, 502, 503][..],
            false,
        ),
        // The next try has other headers.
        (&[406, 407, 412, 415, 417, 426, 428, 431][..], false),
    ] {
        for status in statuses {
            let before = service.runs();
            let (first, again) = (send(*status).await, send(*status).await);
            assert_eq!((first.status, again.status), (*status, *status));
            assert_eq!(again.is_replay(), is_kept, "{status}");
            assert_eq!(
                service.runs() - before,
                if is_kept { 1 } else { 2 },
                "{status}"
            );
        }
    }
}

#[tokio::test]
async fn headers_and_statuses_are_what_was_configured() {
    let cookie = HeaderName::from_static("set-cookie");
    let own = HeaderName::from_static("x-request-id");
    let layer = layer()
        .header(own)
        .keep_header(cookie)
        .keep_statuses(|status| status == 503);
    let service = Service::start(layer).await;
    let send = |status: &str| {
        let request = service
            .request(Method::POST, "/payments")
            .header("x-request-id", status);
        Answer::of(request.header("x-status", status))
    };
    let (first, again) = (send("503").await, send("503").await);
    assert_eq!(
        (again.is_replay(), &again.headers["set-cookie"]),
        (true, &first.headers["set-cookie"])
    );
    send("201").await;
    assert!(!send("201").await.is_replay());
}

#[tokio::test]
async fn a_header_that_is_named_twice_is_replayed_once() {
    let names = ["location", "set-cookie", "set-cookie"];
    let layer = names.into_iter().fold(layer(), |layer, name| {
        layer.keep_header(HeaderName::from_static(name))
    });
    let service = Service::start(layer).await;
    Answer::of(service.payment()).await;
    let again = Answer::of(service.payment()).await;
    assert!(again.is_replay());
    for name in names {
        assert_eq!(again.headers.get_all(name).iter().count(), 1, "{name}");
    }
}
