//! Links and code blocks of Markdown files, as a reader of the repository meets them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use crate::{files, root};

#[test]
fn relative_links_lead_to_a_file_or_a_heading() {
    let mut seen = 0;
    let mut dead = String::new();
    for file in files(root(), "md") {
        let text = fs::read_to_string(&file).unwrap();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            if !leads_somewhere(&file, &text, &link) {
                writeln!(dead, "{}: {link}", file.display()).unwrap();
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{dead}");
    assert!(seen > 50, "{seen} links were found");
}

#[test]
fn references_of_links_are_defined() {
    let mut dead = String::new();
    for file in files(root(), "md") {
        let text = fs::read_to_string(&file).unwrap();
        let mut broken = |link: pulldown_cmark::BrokenLink<'_>| {
            writeln!(dead, "{}: [{}]", file.display(), link.reference).unwrap();
            None
        };
        Parser::new_with_broken_link_callback(&text, Options::ENABLE_TABLES, Some(&mut broken))
            .for_each(drop);
    }
    assert!(dead.is_empty(), "no file is given for these links:\n{dead}");
}

#[test]
fn code_blocks_say_what_language_they_are_in() {
    let mut silent = String::new();
    for file in files(root(), "md") {
        let text = fs::read_to_string(&file).unwrap();
        for (event, at) in Parser::new(&text).into_offset_iter() {
            if let Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) = event
                && language.is_empty()
            {
                let line = text[..at.start].matches('\n').count() + 1;
                writeln!(silent, "{}:{line}", file.display()).unwrap();
            }
        }
    }
    assert!(silent.is_empty(), "without a language:\n{silent}");
}

/// Where the links, pictures and definitions of a text lead.
fn links(text: &str) -> Vec<String> {
    let parser = Parser::new_ext(text, Options::ENABLE_TABLES);
    let defined = parser.reference_definitions().iter();
    let mut links: Vec<_> = defined
        .map(|(_, definition)| definition.dest.to_string())
        .collect();
    links.extend(parser.filter_map(|event| match event {
        Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
            Some(dest_url.to_string())
        }
        _ => None,
    }));
    links
}

/// Whether the file is in the repository, and has the heading.
fn leads_somewhere(from: &Path, text: &str, link: &str) -> bool {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let target = from.parent().unwrap().join(path);
    if path.is_empty() {
        return headings(text).iter().any(|found| found == heading);
    }
    let Ok(target) = target.canonicalize() else {
        return false;
    };
    target.starts_with(root().canonicalize().unwrap())
        && (heading.is_empty()
            || (fs::read_to_string(&target)
                .is_ok_and(|text| headings(&text).iter().any(|found| found == heading))))
}

/// The anchors of the headings, as GitHub makes them.
fn headings(text: &str) -> Vec<String> {
    let mut anchors = Vec::new();
    let mut heading: Option<String> = None;
    for event in Parser::new(text) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::Text(part) | Event::Code(part) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&part);
                }
            }
            Event::End(TagEnd::Heading(_)) => {
                let words = heading.take().unwrap_or_default().to_lowercase();
                let kept = words
                    .chars()
                    .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
                anchors.push(kept.map(|c| if c == ' ' { '-' } else { c }).collect());
            }
            _ => {}
        }
    }
    anchors
}
