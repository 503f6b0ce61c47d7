//! Draws the picture of the README from what the benches write as JSON; of several runs it takes the
//! medians:
//!
//! ```sh
//! cargo bench -p lock-tests --bench postgres -- --json > postgres.json
//! cargo bench -p lock-tests --bench redis -- --json > redis.json
//! cargo run -p lock-tests --example draw_comparison -- postgres.json redis.json > docs/comparison.svg
//! ```

#![allow(clippy::unwrap_used, reason = "a drawing that fails ends")]
#![allow(clippy::print_stdout, reason = "the drawing goes to standard output")]

use std::collections::BTreeMap;
use std::fs;

use lock_tests::comparison::median;
use serde::Deserialize;
use svg::Document;
use svg::node::element::{Group, Rectangle, Style, Text, Title};

/// A line of a bench: the first names the peer, the others are measured.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Peer {
        peer_name: String,
    },
    Row {
        what: String,
        ours: String,
        peer: String,
    },
}

/// Cycles a second of many runs.
#[derive(Default)]
struct Rates {
    ours: Vec<f64>,
    peer: Vec<f64>,
}

/// By the peer, then by the row.
type Charts = BTreeMap<String, BTreeMap<String, Rates>>;

/// The rows that are drawn, as the benches call them and as the picture does.
const ROWS: [(&str, &str); 4] = [
    ("acquire + release a second, 1 tasks", "1 task"),
    ("acquire + release a second, 64 tasks", "64 tasks"),
    ("acquire + release a second, 1024 tasks", "1,024 tasks"),
    ("the same on one name, 100 tasks", "100 tasks, one name"),
];

const WIDTH: f64 = 760.0;
const LABELS: f64 = 150.0;
const BARS: f64 = 480.0;
const BAR: f64 = 14.0;
const ROW: f64 = 2.0 * BAR + 14.0;
const HEADING: f64 = 46.0;

/// The colours of GitHub's two modes.
const STYLE: &str = "
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.heading { font-weight: 600 }
.ours { fill: #0969da }
.peer { fill: #afb8c1 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ours { fill: #4493f8 }
  .peer { fill: #656c76 }
}
";

fn main() {
    let charts = read(std::env::args().skip(1));
    let mut document = Document::new()
        .add(Title::new("Acquires and releases a second, beside peers"))
        .add(Style::new(STYLE));
    let mut top = 0.0;
    for (peer, rows) in &charts {
        document = document.add(text(0.0, top + 20.0, &heading(peer)).set("class", "heading"));
        top += HEADING;
        for (what, label) in ROWS {
            let rates = rows
                .get(what)
                .unwrap_or_else(|| panic!("{peer}: {what:?} is not there"));
            document = document.add(row(top, label, rates));
            top += ROW;
        }
    }
    println!("{}", document.set("viewBox", (0, 0, WIDTH, top)));
}

fn read(files: impl Iterator<Item = String>) -> Charts {
    let mut charts = Charts::new();
    for file in files {
        let mut chart = None;
        let lines = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        for line in lines.lines().filter(|line| line.starts_with('{')) {
            match serde_json::from_str(line).unwrap() {
                Line::Peer { peer_name } => chart = Some(charts.entry(peer_name).or_default()),
                Line::Row { what, ours, peer } => {
                    let rates = chart.as_mut().unwrap().entry(what).or_default();
                    // Some rows have no peer, or no number.
                    if let (Ok(ours), Ok(peer)) = (ours.parse(), peer.parse()) {
                        rates.ours.push(ours);
                        rates.peer.push(peer);
                    }
                }
            }
        }
    }
    charts
}

fn heading(peer: &str) -> String {
    let server = match peer {
        "rslock" => "Redis",
        _ => "PostgreSQL",
    };
    format!("{server}: acquires and releases a second; blue is lock-core, grey is {peer}")
}

/// Two bars, of which the longer is as long as there is room.
fn row(top: f64, label: &str, rates: &Rates) -> Group {
    let (ours, peer) = (median(rates.ours.clone()), median(rates.peer.clone()));
    let longest = ours.max(peer);
    let mut group = Group::new().add(text(0.0, top + BAR + 4.0, label));
    for (number, (class, rate)) in [("ours", ours), ("peer", peer)].into_iter().enumerate() {
        let top = top + number as f64 * BAR;
        let length = (BARS * rate / longest).max(1.0);
        let bar = Rectangle::new()
            .set("class", class)
            .set("x", LABELS)
            .set("y", top)
            .set("width", length.round())
            .set("height", BAR - 2.0);
        let value = text(
            LABELS + length.round() + 6.0,
            top + BAR - 3.0,
            &thousands(rate),
        );
        group = group.add(bar).add(value);
    }
    group
}

fn text(x: f64, y: f64, content: &str) -> Text {
    Text::new(content).set("x", x).set("y", y)
}

/// Two digits that count, with commas.
fn thousands(rate: f64) -> String {
    let unit = 10_f64.powf((rate.log10().floor() - 1.0).max(0.0));
    let digits = format!("{:.0}", (rate / unit).round() * unit);
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
