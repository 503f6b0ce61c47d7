//! Templates of the macro.

use std::fmt::Display;
use std::sync::OnceLock;

use lock_grammar::GrammarError;

use super::{LockName, LockTemplate};
use crate::LockError;

/// A template in a `static`, read when it is filled for the first time.
#[derive(Debug)]
pub struct StaticTemplate {
    text: &'static str,
    parsed: OnceLock<Result<LockTemplate, GrammarError>>,
}

impl StaticTemplate {
    /// The template of this text, which was not parsed yet.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            parsed: OnceLock::new(),
        }
    }

    /// Its text.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.text
    }

    /// Fills it: one value for each placeholder, in their order.
    ///
    /// # Errors
    ///
    /// As of [`LockTemplate::fill`], and when the text is no template.
    pub fn fill(&self, values: &[&dyn Display]) -> Result<LockName, LockError> {
        self.parsed
            .get_or_init(|| LockTemplate::parse_static(self.text))
            .as_ref()
            .map_err(|error| LockTemplate::refusal(self.text, error))?
            .fill_positional(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fills_and_labels_with_its_text() {
        static TEMPLATE: StaticTemplate = StaticTemplate::new("order:process:<cmd.id>");
        for id in [7, 8] {
            let name = TEMPLATE.fill(&[&id]).unwrap();
            assert_eq!(name.as_str(), format!("order:process:{id}"));
            assert_eq!(name.label(), "order:process:<cmd.id>");
        }
        assert_eq!(TEMPLATE.as_str(), "order:process:<cmd.id>");
    }

    #[test]
    fn a_text_that_is_no_template_is_refused_at_every_fill() {
        static TEMPLATE: StaticTemplate = StaticTemplate::new("order:<id>");
        for _ in 0..2 {
            let error = TEMPLATE.fill(&[&1]).unwrap_err();
            assert!(error.is_invalid_name());
            assert!(
                error.to_string().contains("in the template `order:<id>`"),
                "{error}"
            );
        }
    }
}
