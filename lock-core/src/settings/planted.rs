//! No part of a secret is in what is said about a connection string, wherever in it the secret stands.

use std::error::Error;
use std::fmt::Debug;

use proptest::prelude::*;

use super::LockSettings;
use crate::LockError;
use crate::postgres::parse_url;
use crate::redis::{RedisBackend, RedisCompanion};

/// Where a secret can be by right or by mistake.
const PLACES: [&str; 34] = [
    "postgres://app:{}@db/shop",
    "postgres://{}@db/shop",
    "postgres://{}:x@db/shop",
    "postgres://app:x@db:{}/shop",
    "postgres://app:x@db/{}",
    "postgres://app:x@db/shop?password={}",
    "postgres://app:x@db/shop?password=ab&{}",
    "postgres://app:x@db/shop?{}=1&connect_timeout=5",
    "postgres://app:x@db/shop?sslmode={}",
    "postgres://app:x@db/shop?port={}",
    "postgres://app:x@db/shop?hostaddr={}",
    "postgres://app:x@db/shop?channel_binding={}",
    "postgres://app:x@db/shop?options[{}]={}",
    "postgres://app:x@db/shop#{}",
    "postgres:{}",
    "redis://:{}@cache:6379",
    "redis://{}:x@cache:6379/1",
    "redis://app:x@cache:{}",
    "redis://app:x@cache/{}",
    "redis://app:x@cache?{}=1",
    "redis://app:x@cache?protocol={}",
    "redis://app:x@cache#{}",
    "unix:///run/redis.sock?pass={}&db=1",
    "cache:6379,password={}",
    "cache:6379,password={},ssl=false",
    "cache:6379,{}=x",
    "cache:6379,password=ab,{}",
    "cache:6379,connectTimeout={}",
    "redis+sentinel://app:{}@one:1,two/shop/0",
    "redis+sentinel://one:1,two:{}/shop",
    "redis+sentinel://one:1/shop?sentinel_password={}",
    "one:1,two:2,serviceName=shop,sentinelPassword={}",
    "{}://app:x@cache/1",
    "{}",
];

/// Parts of a secret, which no text of ours has, with what connection strings are made of between them.
fn secrets() -> impl Strategy<Value = (Vec<String>, String)> {
    let part = "([qxz][0-9]){2,4}";
    let between = "[/?#@:&=,%;\\[\\] +\n\u{200b}]{1,2}";
    (
        part,
        prop::collection::vec((between, part), 0..3),
        prop::option::of("[/?#@:&=,%]"),
    )
        .prop_map(|(first, rest, last)| {
            let mut parts = vec![first.clone()];
            let mut secret = first;
            for (between, part) in rest {
                secret = secret + &between + &part;
                parts.push(part);
            }
            (parts, secret + &last.unwrap_or_default())
        })
}

fn told(error: &LockError) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(" {cause} {cause:?}");
        source = cause.source();
    }
    text
}

/// What is said about what was understood. A host, a port and a path to one are no secrets.
fn shown<T: Debug>(result: Result<T, LockError>, place: &str) -> String {
    match result {
        Ok(value) if !place.starts_with("{}") => format!("{value:?}"),
        Ok(_) => String::new(),
        Err(error) => told(&error),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_part_of_a_secret_is_told(place in prop::sample::select(&PLACES[..]), (parts, secret) in secrets()) {
        // What follows the last `@` there is the host, and no secret.
        let is_before_host = place.ends_with("@cache:{}") || place.contains(",two:{}");
        prop_assume!(!(is_before_host && secret.contains('@')));
        let text = place.replace("{}", &secret);
        let settings = LockSettings::new().database_url(&text).redis_url(&text).name_secret(&*secret);
        let texts = [
            shown(parse_url(&text).map(drop), place),
            shown(RedisCompanion::new(&text), place),
            format!("{:?}", RedisBackend::builder(&text)),
            format!("{:?}", crate::postgres::PostgresBackend::builder(&*text)),
            shown(settings.check().map(|()| settings.clone()), place),
            shown(settings.choose().map(drop), place),
        ];
        for said in texts.iter().map(|said| said.to_lowercase()) {
            for part in &parts {
                for window in part.as_bytes().windows(4) {
                    let window = std::str::from_utf8(window).unwrap();
                    prop_assert!(!said.contains(window), "{window} of {text:?}: {said}");
                }
            }
        }
    }
}
