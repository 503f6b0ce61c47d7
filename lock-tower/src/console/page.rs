//! The page. Every value is escaped by the templates.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};

use super::local::{Here, LOSSES, Local, Lost};
use super::rows::SHOWN;
use super::snapshot::Snapshot;
use super::store::{Store, Stored};

/// What is not known.
const UNKNOWN: &str = "\u{2013}";

/// An answer of the store that is older is said to be, in milliseconds: it is so where the store is slow.
const OLD: u64 = 2_000;

pub(super) fn page(shown: &Snapshot) -> Markup {
    let local = &shown.local;
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "Locks" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="locks.css";
                script src="locks.js" defer {}
                noscript { meta http-equiv="refresh" content="10"; }
            }
            body {
                header {
                    h1 #heading {
                        "Locks"
                        @if let Some(instance) = &local.instance { ", as seen by " code { (instance) } }
                    }
                    // Shown by the script, without which nothing is refreshed in place.
                    button #pause type="button" aria-pressed="false" hidden { "Pause" }
                    // Read aloud when the script fills it, so it is there before.
                    p #notice role="status" {}
                    p #failure role="alert" hidden {}
                }
                main {
                    p.meta {
                        (shown.backend) ", as of "
                        time #taken datetime=(local.taken_at) { (at(&local.taken_at)) }
                        ". " a #json href="locks.json" { "JSON" }
                        (age(&shown.store))
                    }
                    (glance(shown))
                    (store(&shown.store))
                    (instances(&shown.store))
                    (here(local))
                    (lost(&local.lost))
                    (templates(local))
                }
            }
        }
    }
}

/// What a person looks for first.
fn glance(shown: &Snapshot) -> Markup {
    let (store, local) = (&shown.store, &shown.local);
    html! {
        dl.glance {
            div {
                dt { "Held longest" }
                dd {
                    @match store.longest() {
                        Some(lock) => {
                            // Of those that were listed.
                            @if !store.is_by_age { "at least " }
                            (time(lock.held_ms)) small { (instance(lock.instance.as_deref())) }
                        },
                        None => (UNKNOWN),
                    }
                }
            }
            div {
                dt { "Longest line here" }
                dd {
                    @match &local.line {
                        Some(lock) => { (lock.waiting) small { (lock.name.as_deref().unwrap_or(&lock.lock)) } },
                        None => "0",
                    }
                }
            }
            div {
                dt { "Lost here lately" }
                dd {
                    (losses(&local.lost))
                    @if let Some(loss) = local.lost.first() { small { "last at " (at(&loss.at)) } }
                }
            }
            div {
                dt { "Held in all" }
                dd {
                    @if store.error.is_some() { (UNKNOWN) } @else {
                        (number(store.listed, store.complete))
                        @match (store.listed, store.instances_total) {
                            (0, _) => {},
                            (_, 0) => small { "the store does not tell by which instances" },
                            (_, 1) if store.are_all_named => small { "by 1 instance" },
                            (_, total) => small { "by " (number(total, store.are_all_named)) " instances" },
                        }
                    }
                }
            }
        }
    }
}

fn store(store: &Store) -> Markup {
    let rows = store.locks.iter().map(stored);
    let which = match store.is_by_age {
        true => format!("The {SHOWN} that are held longest,"),
        false => format!("The first {SHOWN}"),
    };
    html! {
        section aria-labelledby="store" {
            (heading("store", "Held in the store", store.error.is_none().then(|| number(store.listed, store.complete))))
            // Read aloud when it is filled, so it is there before.
            p.error #store-error role="status" {
                @if let Some(error) = &store.error { "The store does not tell: " (error) }
            }
            (table(
                "store",
                &["Lock", "Instance", "Held for", "Mode", "Awaited"],
                rows,
                if store.error.is_some() { "It is not known what is held." } else { "Nothing is held." },
            ))
            (rest(&which, store.listed, store.complete))
        }
    }
}

/// How old the answer of the store is, where it is not of now.
fn age(store: &Store) -> Markup {
    html! {
        @if let Some(age) = store.age_ms.filter(|age| *age >= OLD) {
            " The store as of " (time(Some(age))) " ago."
        }
    }
}

fn stored(lock: &Stored) -> Markup {
    html! {
        tr {
            th scope="row" { code { (lock.name.as_deref().unwrap_or(&lock.key)) } }
            td { (instance(lock.instance.as_deref())) }
            td.number {
                @match lock.opens_in_ms {
                    Some(_) => { "released, opens in " (time(lock.opens_in_ms)) },
                    None => (time(lock.held_ms)),
                }
            }
            td { (lock.mode) }
            td { (match lock.awaited { Some(true) => "yes", Some(false) => "no", None => UNKNOWN }) }
        }
    }
}

fn instances(store: &Store) -> Markup {
    let rows = store.instances.iter().map(|row| {
        html! {
            tr {
                th scope="row" { (row.instance.as_deref().unwrap_or("The store does not tell")) }
                td.number { (row.locks) }
            }
        }
    });
    let is_known = store.error.is_none() && (store.listed == 0 || store.instances_total > 0);
    html! {
        section aria-labelledby="instances" {
            (heading("instances", "Instances", is_known.then(|| number(store.instances_total, store.complete))))
            (table(
                "instances",
                &["Instance", "Locks"],
                rows.filter(|_| is_known).collect::<Vec<_>>().into_iter(),
                if is_known { "No instance holds a lock." } else { "The store does not tell which instances hold locks." },
            ))
            (rest(&format!("The first {SHOWN}"), store.instances_total, store.complete))
        }
    }
}

fn here(local: &Local) -> Markup {
    let rows = local.here.iter().map(|lock| {
        html! {
            tr {
                (named(&lock.lock, lock.name.as_deref()))
                td.number { (time(lock.held_ms)) }
                td { (mode(lock)) }
                td.number { (lock.waiting) }
            }
        }
    });
    html! {
        section aria-labelledby="here" {
            (heading("here", "Held and awaited by this instance", Some(number(local.here_total, true))))
            (table("here", &["Lock", "Held for", "Mode", "Tasks that wait"], rows, "Nothing is held or awaited here."))
            (rest(&format!("The first {SHOWN}"), local.here_total, true))
        }
    }
}

/// How tasks of this instance hold it, as the store calls that.
fn mode(lock: &Here) -> String {
    match (lock.held_ms, lock.readers) {
        (None, _) => UNKNOWN.to_owned(),
        (_, 0) => "exclusive".to_owned(),
        (_, 1) => "shared".to_owned(),
        (_, readers) => format!("shared by {readers}"),
    }
}

fn lost(lost: &[Lost]) -> Markup {
    let rows = lost.iter().map(|loss| {
        html! {
            tr {
                (named(&loss.lock, loss.name.as_deref()))
                td { (loss.reason) }
                td.number { (time(Some(loss.held_ms))) }
                td { time datetime=(loss.at) { (at(&loss.at)) } }
            }
        }
    });
    html! {
        section aria-labelledby="lost" {
            (heading("lost", "Lost by this instance", Some(losses(lost))))
            (table("lost", &["Lock", "Reason", "Held for", "At"], rows, "No lock was lost."))
        }
    }
}

/// Of those before the last ones nothing is kept.
fn losses(lost: &[Lost]) -> String {
    number(lost.len(), lost.len() < LOSSES)
}

fn templates(local: &Local) -> Markup {
    let rows = local.templates.iter().map(|template| {
        html! {
            tr {
                (named(&template.lock, None))
                td.number { (template.held) }
                td.number { (template.waiting) }
                td.number { (template.contended) }
                td.number { (template.failed) }
            }
        }
    });
    html! {
        section aria-labelledby="templates" {
            (heading("templates", "By template, in this instance", Some(number(local.templates_total, true))))
            (table(
                "templates",
                &["Template", "Held", "Waiting", "Contended", "Failed"],
                rows,
                "No lock was asked for.",
            ))
            (rest(&format!("The first {SHOWN}"), local.templates_total, true))
        }
    }
}

/// With how many there are, where that is known.
fn heading(id: &str, title: &str, total: Option<String>) -> Markup {
    html! {
        h2 id=(id) { (title) @if let Some(total) = total { " " span.total { "(" (total) ")" } } }
    }
}

/// Of how many the table shows some.
fn rest(which: &str, total: usize, complete: bool) -> Markup {
    html! {
        @if total > SHOWN {
            p.meta { (which) " of " (total) @if !complete { " and more" } "." }
        }
    }
}

/// In a region of its own, which a keyboard can scroll where the window is narrow. It is there also without rows, so
/// that a refresh finds each part of a section in its place, and leaves the others alone.
fn table(
    label: &str,
    titles: &[&str],
    rows: impl ExactSizeIterator<Item = Markup>,
    empty: &str,
) -> Markup {
    html! {
        @let has_rows = rows.len() > 0;
        div.scroll[has_rows] #{ (label) "-rows" } tabindex=[has_rows.then_some("0")] role=[has_rows.then_some("region")] aria-labelledby=[has_rows.then_some(label)] {
            @if has_rows {
                table {
                    thead { tr { @for title in titles { th scope="col" { (title) } } } }
                    tbody { @for row in rows { (row) } }
                }
            } @else {
                p.empty { (empty) }
            }
        }
    }
}

fn named(label: &str, name: Option<&str>) -> Markup {
    html! { th scope="row" { code { (name.unwrap_or(label)) } } }
}

fn instance(instance: Option<&str>) -> &str {
    instance.unwrap_or(UNKNOWN)
}

fn number(total: usize, complete: bool) -> String {
    format!("{total}{}", if complete { "" } else { "+" })
}

/// A time of the day, as people read it, without its fractions of a second.
fn at(rfc3339: &str) -> String {
    let seconds = rfc3339
        .split_once('.')
        .map_or(rfc3339, |(seconds, _)| seconds);
    format!("{} UTC", seconds.replace('T', " "))
}

/// In whole seconds.
fn time(millis: Option<u64>) -> String {
    let time = millis.map(|millis| Duration::from_secs(millis / 1_000));
    time.map_or_else(
        || UNKNOWN.to_owned(),
        |time| humantime::format_duration(time).to_string(),
    )
}
