//! The page. Every value is escaped by the templates.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};

use super::snapshot::{Here, Instance, Lost, SHOWN, Snapshot, Store, Stored, Template};

/// What is not known.
const UNKNOWN: &str = "\u{2013}";

pub(super) fn page(shown: &Snapshot) -> Markup {
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
                    h1 { "Locks" }
                    // Shown by the script, without which nothing is refreshed in place.
                    button #pause type="button" aria-pressed="false" hidden { "Pause" }
                    p #failure role="alert" hidden {}
                }
                main {
                    p.meta {
                        (shown.backend) ", as of "
                        time #taken datetime=(shown.taken_at) { (at(&shown.taken_at)) }
                        ". " a href="locks.json" { "JSON" }
                    }
                    (glance(shown))
                    (store(&shown.store))
                    (instances(&shown.store.instances))
                    (here(&shown.here))
                    (lost(&shown.lost))
                    (templates(&shown.templates))
                }
            }
        }
    }
}

/// What a person looks for first.
fn glance(shown: &Snapshot) -> Markup {
    let longest = shown.store.locks.iter().find(|lock| lock.held_ms.is_some());
    let line = shown.here.iter().max_by_key(|lock| lock.waiting);
    let line = line.filter(|lock| lock.waiting > 0);
    html! {
        dl.glance {
            div {
                dt { "Held longest" }
                dd {
                    @match longest {
                        Some(lock) => { (time(lock.held_ms)) small { (instance(lock.instance.as_deref())) } },
                        None => (UNKNOWN),
                    }
                }
            }
            div {
                dt { "Longest line here" }
                dd {
                    @match line {
                        Some(lock) => { (lock.waiting) small { (lock.name.as_deref().unwrap_or(&lock.lock)) } },
                        None => "0",
                    }
                }
            }
            div {
                dt { "Lost here lately" }
                dd {
                    (shown.lost.len())
                    @if let Some(loss) = shown.lost.first() { small { "last at " (at(&loss.at)) } }
                }
            }
            div {
                dt { "Held in all" }
                dd {
                    @if shown.store.error.is_some() { (UNKNOWN) } @else {
                        (shown.store.listed) @if !shown.store.complete { "+" }
                        small { "by " (shown.store.instances.len()) @if shown.store.instances.len() == 1 { " instance" } @else { " instances" } }
                    }
                }
            }
        }
    }
}

fn store(store: &Store) -> Markup {
    let rows = store.locks.iter().map(stored);
    html! {
        section aria-labelledby="store" {
            h2 #store { "Held in the store" }
            @if let Some(error) = &store.error {
                p.error role="status" { "The store does not tell: " (error) }
            } @else {
                (table("store", &["Lock", "Instance", "Held for", "Mode", "Awaited"], rows, "Nothing is held."))
                @if store.listed > SHOWN {
                    p.meta {
                        "The " (SHOWN) " that are held longest, of " (store.listed)
                        @if !store.complete { " and more" } "."
                    }
                }
            }
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

fn instances(instances: &[Instance]) -> Markup {
    let rows = instances.iter().map(|row| {
        html! {
            tr {
                th scope="row" { (instance(row.instance.as_deref())) }
                td.number { (row.locks) }
            }
        }
    });
    html! {
        section aria-labelledby="instances" {
            h2 #instances { "Instances" }
            (table("instances", &["Instance", "Locks"], rows, "No instance holds a lock."))
        }
    }
}

fn here(here: &[Here]) -> Markup {
    let rows = here.iter().map(|lock| {
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
            h2 #here { "Held and awaited by this instance" }
            (table("here", &["Lock", "Held for", "Mode", "Tasks that wait"], rows, "Nothing is held or awaited here."))
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
            h2 #lost { "Lost by this instance" }
            (table("lost", &["Lock", "Reason", "Held for", "At"], rows, "No lock was lost."))
        }
    }
}

fn templates(templates: &[Template]) -> Markup {
    let rows = templates.iter().map(|template| {
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
            h2 #templates { "By template, in this instance" }
            (table(
                "templates",
                &["Template", "Held", "Waiting", "Contended", "Failed"],
                rows,
                "No lock was asked for.",
            ))
        }
    }
}

/// In a region of its own, which a keyboard can scroll where the window is narrow.
fn table(
    label: &str,
    titles: &[&str],
    rows: impl ExactSizeIterator<Item = Markup>,
    empty: &str,
) -> Markup {
    html! {
        @if rows.len() == 0 { p.empty { (empty) } } @else {
            div.scroll #{ (label) "-rows" } tabindex="0" role="region" aria-labelledby=(label) {
                table {
                    thead { tr { @for title in titles { th scope="col" { (title) } } } }
                    tbody { @for row in rows { (row) } }
                }
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
