//! What this process is called.

use std::sync::Arc;

use super::{LONGEST, check};
use crate::{LockError, plain_text};

/// The text by which operators and other instances find this one.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    text: Arc<str>,
    /// Whether no text was given: it is of the host and the process.
    #[cfg_attr(
        not(any(feature = "file", feature = "postgres")),
        expect(dead_code, reason = "the other stores take it as it is")
    )]
    is_default: bool,
}

impl Instance {
    /// What was given, but for blanks at the ends; the default where that is nothing.
    ///
    /// # Errors
    ///
    /// [`Misconfigured`](crate::LockErrorKind::Misconfigured), without the text: what stands in the wrong
    /// place can be a secret.
    pub(crate) fn of(given: &str) -> Result<Self, LockError> {
        let text = plain_text::trimmed(given);
        if text.is_empty() {
            return Ok(Self::of_process(LONGEST));
        }
        check(text).map_err(|error| error.in_setting("the instance"))?;
        Ok(Self {
            text: text.into(),
            is_default: false,
        })
    }

    /// `host:pid`, in so many bytes: the first label of a long name of a host, and of that the end, where
    /// schedulers put what tells instances apart.
    pub(crate) fn of_process(room: usize) -> Self {
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy();
        let text = name_process(&host, std::process::id(), room);
        Self {
            text: text.into(),
            is_default: true,
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it names the process that has made it, and says nothing of a child that was forked.
    #[cfg(any(feature = "file", feature = "postgres"))]
    pub(crate) fn is_default(&self) -> bool {
        self.is_default
    }
}

fn name_process(host: &str, pid: u32, room: usize) -> String {
    let pid = format!(":{pid}");
    let room = room.saturating_sub(pid.len());
    let is_shown = |c: &char| c.is_ascii_graphic();
    let mut host: String = host.chars().filter(is_shown).collect();
    if host.len() > room {
        host.truncate(host.find('.').unwrap_or(host.len()));
    }
    let cut = host.len().saturating_sub(room);
    host[cut..].to_owned() + &pid
}

#[cfg(all(test, any(feature = "file", feature = "postgres")))]
mod tests {
    use super::*;
    use crate::instance::is_instance;

    #[test]
    fn an_instance_is_short_printable_and_without_blanks() {
        let longest = "x".repeat(LONGEST);
        for good in ["web-1:4711", "http://[::1]:8080", "x", &longest, " web-1\n"] {
            let instance = Instance::of(good).unwrap();
            assert_eq!(instance.as_str(), good.trim());
            assert!(!instance.is_default());
        }
        let too_long = "x".repeat(LONGEST + 1);
        let secret = "redis://:hunter2@cache";
        for wrong in [
            &*too_long,
            "web 1",
            "web\u{7f}1",
            "wéb",
            "web\u{200b}1",
            secret,
        ] {
            let error = Instance::of(wrong).unwrap_err();
            assert!(error.is_misconfigured(), "{error}");
            let said = error.to_string();
            assert!(
                said.contains("the instance: it has") && !said.contains(wrong),
                "{said}"
            );
            assert!(!is_instance(wrong));
        }
        assert!(!is_instance(""));
    }

    #[test]
    fn what_is_not_given_is_the_host_and_the_process() {
        let instance = Instance::of(" ").unwrap();
        let pid = format!(":{}", std::process::id());
        assert!(instance.is_default() && instance.as_str().ends_with(&pid));
        assert!(is_instance(instance.as_str()));
    }

    #[test]
    fn the_name_of_a_host_is_cut_to_what_tells_it_apart() {
        assert_eq!(name_process("web-1", 7, LONGEST), "web-1:7");
        let named = name_process(
            "web-1.fleet.shop.example.internal.corporation",
            4_194_304,
            LONGEST,
        );
        assert_eq!(named, "web-1:4194304");
        let pod = "checkout-service-payments-deployment-7d9f8b6c5d-x2x4z";
        let named = name_process(pod, 1, LONGEST);
        assert_eq!(named, "service-payments-deployment-7d9f8b6c5d-x2x4z:1");
        assert_eq!(named.len(), LONGEST);
        assert_eq!(name_process("wéb \u{7f}1", 7, LONGEST), "wb1:7");
        assert_eq!(name_process("web-1", 7, 1), ":7");
    }
}
