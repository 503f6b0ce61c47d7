//! The one question that three checks ask: was a caller overtaken?

/// Something with a time and a rank.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<T> {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) rank: u64,
    pub(super) of: T,
}

/// All pairs of one that had ended before the other started, and ranks higher. Of several before it,
/// each is paired with the highest. O(n log n).
pub(super) fn overtaken<T: Copy>(spans: impl IntoIterator<Item = Span<T>>) -> Vec<(T, T)> {
    let mut by_start: Vec<_> = spans.into_iter().collect();
    let mut by_end = by_start.clone();
    by_start.sort_by_key(|span| span.start);
    by_end.sort_by_key(|span| span.end);
    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<Span<T>> = None;
    let mut pairs = Vec::new();
    for span in by_start {
        while let Some(before) = ended.next_if(|before| before.end < span.start) {
            highest = highest
                .filter(|highest| highest.rank >= before.rank)
                .or(Some(before));
        }
        if let Some(before) = highest.filter(|before| before.rank > span.rank) {
            pairs.push((before.of, span.of));
        }
    }
    pairs
}
