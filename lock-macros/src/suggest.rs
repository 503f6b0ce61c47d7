//! "Did you mean": the nearest of the words that were possible, and lists of them.

/// The candidate that `word` is most likely a misspelling of.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // A third of the letters may differ: more, and any short word is like any other.
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Case, and underscores at the front, are the likeliest slips of all.
fn distance(word: &str, candidate: &str) -> usize {
    let plain = |text: &str| text.trim_start_matches('_').to_lowercase();
    let (word, candidate) = (plain(word), plain(candidate));
    if !word.is_empty() && candidate.ends_with(&format!("_{word}")) {
        return 1; // `id` for `order_id`
    }
    strsim::osa_distance(&word, &candidate)
}

/// "`a`, `b` and `c`".
pub(crate) fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    join(words, "and")
}

/// "`a`, `b` or `c`".
pub(crate) fn choice<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    join(words, "or")
}

fn join<'a>(words: impl IntoIterator<Item = &'a str>, last_but_one: &str) -> String {
    let words: Vec<_> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {last_but_one} {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        let known = ["provider", "guard", "wait", "max_hold"];
        assert_eq!(nearest("waits", known), Some("wait"));
        assert_eq!(nearest("maxhold", known), Some("max_hold"));
        assert_eq!(nearest("Guard", known), Some("guard"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(nearest("x", ["id"]), None);
        assert_eq!(nearest("id", ["name", "order_id"]), Some("order_id"));
    }

    #[test]
    fn lists_read_like_sentences() {
        assert_eq!(list(["a"]), "`a`");
        assert_eq!(list(["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(choice(["a", "b"]), "`a` or `b`");
        assert_eq!(list([]), "");
    }
}
