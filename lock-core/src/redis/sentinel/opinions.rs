//! What the answers of all Sentinels say together: see [the module](super) for why the newest counts.

use std::fmt::Write;

use super::Answer;
use super::word::Word;
use crate::LockError;

/// What is named in the newest configuration that one of them knows; `known` is the newest that was heard
/// of before.
pub(super) fn choose<'a>(
    master: &str,
    answers: &'a [Answer],
    known: u64,
    address: impl Fn(usize) -> String,
) -> Result<&'a Word, LockError> {
    let Some((newest, words)) = newest(answers) else {
        return Err(nobody_knows(master, answers, address));
    };
    if is_behind(newest, known, answers) {
        return Err(LockError::unavailable(format!(
            "the Redis Sentinels that answer are behind others that do not: what they know of the master \
             `{master}` is of before its last fail-over, or they were set up anew; start the others, or wait for a \
             lease, after which these are believed"
        )));
    }
    let mut words = words.into_iter();
    let (of, first) = words.next().ok_or_else(LockError::unanswered)?;
    if let Some((by, other)) = words.find(|(_, other)| *other != first) {
        return Err(LockError::misconfigured(format!(
            "the Redis Sentinels do not agree on the master `{master}`, so that two processes could hold one \
             lock: that at {} names {}:{}, and that at {} names {}:{}; give Sentinels that watch one \
             master, by one address",
            address(of),
            first.host,
            first.port,
            address(by),
            other.host,
            other.port,
        )));
    }
    Ok(first)
}

/// Whether they know less than was heard before, and are not most of them.
pub(super) fn are_behind(answers: &[Answer], known: u64) -> bool {
    newest(answers).is_some_and(|(newest, _)| is_behind(newest, known, answers))
}

/// Whether the newest configuration names another than this one; and the newest that is known now.
pub(super) fn names_another(
    answers: &[Answer],
    known: u64,
    is_it: impl Fn(&Word) -> bool,
) -> (bool, u64) {
    match newest(answers) {
        Some((newest, words)) if !is_behind(newest, known, answers) => {
            (!words.iter().any(|(_, word)| is_it(word)), newest)
        }
        _ => (false, known),
    }
}

/// The number of the newest configuration, and what is named there, by whom.
fn newest(answers: &[Answer]) -> Option<(u64, Vec<(usize, &Word)>)> {
    let words = || {
        let words = answers.iter().enumerate();
        words.filter_map(|(at, answer)| Some((at, answer.as_ref().ok()?.as_ref()?)))
    };
    let newest = words().map(|(_, word)| word.epoch).max()?;
    Some((
        newest,
        words().filter(|(_, word)| word.epoch == newest).collect(),
    ))
}

/// Whether they know less than was heard before. Where most of them do, they were set up anew.
fn is_behind(newest: u64, known: u64, answers: &[Answer]) -> bool {
    let heard = answers
        .iter()
        .filter(|answer| matches!(answer, Ok(Some(_))));
    newest < known && 2 * heard.count() <= answers.len()
}

/// Why there is no word. One that does not know the name, or refuses us, has answered: that can be mended.
fn nobody_knows(master: &str, answers: &[Answer], address: impl Fn(usize) -> String) -> LockError {
    let mut said = String::new();
    for (at, answer) in answers.iter().enumerate() {
        let _ = match answer {
            Ok(_) => write!(said, "; that at {} does not know it", address(at)),
            Err(error) => write!(said, "; {}: {error}", address(at)),
        };
    }
    let is_unknown = answers.iter().any(Result::is_ok);
    let is_wrong = |error: &LockError| error.is_misconfigured();
    if is_unknown {
        LockError::misconfigured(format!(
            "no Redis Sentinel knows a master `{master}`: give the name of their configuration \
             (`sentinel monitor NAME ..`){said}"
        ))
    } else if answers
        .iter()
        .any(|answer| answer.as_ref().is_err_and(is_wrong))
    {
        LockError::misconfigured(format!(
            "no Redis Sentinel says where the master `{master}` is{said}"
        ))
    } else {
        LockError::unavailable(format!(
            "no Redis Sentinel answers where the master `{master}` is{said}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(epoch: u64, host: &str) -> Answer {
        Ok(Some(Word {
            epoch,
            host: host.to_owned(),
            port: 6379,
        }))
    }

    fn silent() -> Answer {
        Err(LockError::unanswered())
    }

    fn chosen(answers: &[Answer], known: u64) -> Result<String, LockError> {
        let word = choose("shop", answers, known, |at| format!("s{at}"))?;
        Ok(word.host.clone())
    }

    #[test]
    fn the_newest_configuration_counts_and_not_the_first() {
        let answers = [names(3, "former"), silent(), names(4, "new")];
        assert_eq!(chosen(&answers, 0).unwrap(), "new");
        let another = |host: &str| names_another(&answers, 3, |word| word.host == host);
        assert_eq!(another("former"), (true, 4));
        assert_eq!(another("new"), (false, 4));
    }

    #[test]
    fn a_sentinel_that_is_behind_what_was_heard_is_not_believed() {
        let answers = [names(3, "former"), silent(), silent()];
        assert!(chosen(&answers, 4).unwrap_err().is_unavailable());
        assert_eq!(names_another(&answers, 4, |_| false), (false, 4));
        assert_eq!(chosen(&answers, 3).unwrap(), "former");
    }

    #[test]
    fn sentinels_that_were_set_up_anew_are_believed() {
        let answers = [names(0, "new"), names(0, "new"), silent()];
        assert_eq!(chosen(&answers, 9).unwrap(), "new");
        assert_eq!(names_another(&answers, 9, |_| false), (true, 0));
    }

    #[test]
    fn sentinels_of_two_masters_are_refused_with_both() {
        let error = chosen(&[names(0, "a"), names(0, "b")], 0).unwrap_err();
        assert!(error.is_misconfigured());
        let said = error.to_string();
        assert!(
            said.contains("s0 names a:6379") && said.contains("s1 names b:6379"),
            "{said}"
        );
    }

    #[test]
    fn silence_is_no_other_master_and_an_unknown_name_is_a_mistake() {
        assert_eq!(names_another(&[silent()], 2, |_| false), (false, 2));
        assert!(
            chosen(&[silent(), silent()], 0)
                .unwrap_err()
                .is_unavailable()
        );
        let error = chosen(&[silent(), Ok(None)], 0).unwrap_err();
        assert!(error.is_misconfigured());
        assert!(error.to_string().contains("s1 does not know it"), "{error}");
    }
}
