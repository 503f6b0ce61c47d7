//! What was said by which Sentinel: several names and addresses can lead to one.

use ::redis::ConnectionAddr;

use super::Answer;
use super::word::Word;
use crate::LockError;

/// What the Sentinel at an address says.
pub(super) struct Voice {
    pub(super) at: ConnectionAddr,
    /// What it is called, as far as it says so.
    id: Option<String>,
    pub(super) answer: Answer,
}

impl Voice {
    pub(super) fn of(at: ConnectionAddr, id: Option<String>, answer: Answer) -> Self {
        Self { at, id, answer }
    }

    pub(super) fn silent(at: ConnectionAddr) -> Self {
        Self::of(at, None, Err(LockError::unanswered()))
    }

    fn epoch(&self) -> Option<u64> {
        let word = self.answer.as_ref().ok()?.as_ref();
        word.map(|word: &Word| word.epoch)
    }
}

/// Each Sentinel once, with the newest that it has said: one that counted twice could be most of them alone.
pub(super) fn each_once(voices: Vec<Voice>) -> (Vec<ConnectionAddr>, Vec<Answer>) {
    let mut once: Vec<Voice> = Vec::new();
    for voice in voices {
        let known = once.iter_mut().find(|known| known.id == voice.id);
        match known.filter(|known| known.id.is_some()) {
            Some(known) if known.epoch() < voice.epoch() => *known = voice,
            Some(_) => {}
            None => once.push(voice),
        }
    }
    once.into_iter()
        .map(|voice| (voice.at, voice.answer))
        .unzip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::sentinel::opinions::are_behind;

    fn voice(port: u16, id: Option<&str>, epoch: Option<u64>) -> Voice {
        let at = ConnectionAddr::Tcp("sentinels".to_owned(), port);
        let word = |epoch| Word {
            epoch,
            host: "master".to_owned(),
            port: 6379,
        };
        let answer = epoch.map(|epoch| Some(word(epoch)));
        let answer = answer.ok_or_else(LockError::unanswered);
        Voice::of(at, id.map(str::to_owned), answer)
    }

    #[test]
    fn a_sentinel_that_two_addresses_lead_to_is_not_most_of_them() {
        let by_name = voice(1, Some("a"), Some(3));
        let voices = vec![by_name, voice(2, Some("a"), Some(3)), voice(3, None, None)];
        let (at, answers) = each_once(voices);
        assert_eq!((at.len(), answers.len()), (2, 2));
        assert!(are_behind(&answers, 4), "it counts twice");
    }

    #[test]
    fn the_newest_that_a_sentinel_has_said_counts() {
        let voices = vec![voice(1, Some("a"), Some(3)), voice(2, Some("a"), Some(4))];
        let (_, answers) = each_once(voices);
        let [Ok(Some(word))] = &answers[..] else {
            panic!("{answers:?}");
        };
        assert_eq!(word.epoch, 4);
    }

    #[test]
    fn sentinels_that_do_not_say_what_they_are_called_count_by_address() {
        let voices = vec![voice(1, None, Some(3)), voice(2, None, Some(3))];
        assert_eq!(each_once(voices).1.len(), 2);
    }
}
