//! What sessions are called: `application_name`, which operators see and by which instances are found.

use crate::LockError;
use crate::instance::{Instance, LONGEST};

/// What all of a service are called where nothing else was chosen.
pub(super) const SHARED: &str = "distributed_lock";

/// What the server keeps of it.
const ROOM: usize = 63;

/// Less says nothing of a host.
const LEAST: usize = ROOM - LONGEST;

/// What all sessions of a service have, a blank, and the instance: `distributed_lock web-1:4711`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionName {
    text: String,
    /// How long the part is that all have. It is ASCII.
    shared: usize,
}

impl SessionName {
    /// The same for all instances: the name of a session that holds no locks.
    pub(super) fn without_instance(shared: &str) -> Self {
        Self {
            text: shared.to_owned(),
            shared: shared.len(),
        }
    }

    /// # Errors
    ///
    /// Together they are longer than what the server keeps.
    pub(super) fn new(shared: &str, instance: &Instance) -> Result<Self, LockError> {
        // As the server shows other characters.
        let shown = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
        let shared: String = shared.trim().chars().map(shown).collect();
        let shared = if shared.is_empty() { SHARED } else { &shared };
        let room = ROOM.saturating_sub(shared.len() + 1);
        let too_long = instance.as_str().len() > room;
        let instance = match () {
            () if !too_long => instance.clone(),
            () if instance.is_default() && room >= LEAST => Instance::of_process(room),
            () => {
                return Err(LockError::misconfigured(format!(
                    "the application name and the instance have {} bytes, and PostgreSQL keeps {} of both: \
                     shorten one",
                    shared.len() + instance.as_str().len(),
                    ROOM - 1
                )));
            }
        };
        Ok(Self {
            text: format!("{shared} {}", instance.as_str()),
            shared: shared.len(),
        })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// How many characters at its beginning all sessions of a service have.
    pub(super) const fn shared(&self) -> usize {
        self.shared
    }

    /// The instance of which it is the name; empty where it is of all.
    pub(super) fn instance(&self) -> &str {
        self.text[self.shared..].trim_start()
    }

    /// What a session of this name is called: the instance, of whichever service it is, and of a program without
    /// this library what its name ends with. Empty for an earlier version of this library, which does not say.
    pub(super) fn instance_in<'a>(&self, name: &'a str) -> &'a str {
        match name.strip_prefix(&self.text[..self.shared]) {
            Some("") => "",
            // A pooler can add to it.
            Some(rest) if rest.starts_with(' ') => rest.split(' ').nth(1).unwrap_or_default(),
            _ => name.rsplit(' ').next().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(shared: &str, instance: &str) -> Result<SessionName, LockError> {
        SessionName::new(shared, &Instance::of(instance).unwrap())
    }

    #[test]
    fn all_of_a_service_begin_with_one_name_and_end_with_their_own() {
        let ours = name("distributed_lock", "web-1").unwrap();
        assert_eq!(ours.as_str(), "distributed_lock web-1");
        assert_eq!(&ours.as_str()[..ours.shared()], "distributed_lock");
        assert_eq!(ours.instance(), "web-1");
        assert_eq!(SessionName::without_instance(SHARED).instance(), "");
        assert_eq!(name(" ", "web-1").unwrap(), ours);
        let shop = name("Läden 2", "web-1").unwrap();
        assert_eq!(shop.as_str(), "L?den 2 web-1");
        assert_eq!(shop.shared(), 7);
    }

    #[test]
    fn the_server_keeps_all_of_it() {
        let longest = "x".repeat(LONGEST);
        let ours = name("distributed_lock", &longest).unwrap();
        assert_eq!(ours.as_str().len(), ROOM);
        let error = name("distributed_locks", &longest).unwrap_err();
        assert!(error.is_misconfigured(), "{error}");
        assert!(error.to_string().contains("63 bytes"), "{error}");
        // A name that was not chosen takes the room that there is.
        let shared = "s".repeat(45);
        let short = name(&shared, "").unwrap();
        assert!(short.as_str().len() <= ROOM && short.as_str().contains(':'));
        assert!(name(&"s".repeat(62), "").is_err());
    }

    #[test]
    fn an_instance_is_found_in_what_a_session_is_called() {
        let ours = name("distributed_lock", "web-1").unwrap();
        for (found, instance) in [
            ("distributed_lock web-2:7", "web-2:7"),
            ("distributed_lock web-2:7 - 10.0.0.1:5432", "web-2:7"),
            ("distributed_lock", ""),
            ("billing locks web-3", "web-3"),
            ("distributed_locks web-3", "web-3"),
            ("orders", "orders"),
            ("", ""),
        ] {
            assert_eq!(ours.instance_in(found), instance, "{found}");
        }
    }
}
