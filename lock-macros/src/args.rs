//! Parsing what stands in `#[distributed_lock(..)]`. Only its syntax is judged here.

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Expr, Ident, Lit, LitStr, Path, Result, Token};

use crate::errors::Errors;
use crate::suggest::{list, nearest};

/// Every option, in the order in which messages list them.
const OPTIONS: [&str; 12] = [
    "provider", "policy", "wait", "max_hold", "at_least", "permits", "shared", "busy", "refused",
    "skip", "guard", "crate",
];

/// An option that is a duration of the policy.
pub(crate) struct TimeOption {
    pub(crate) name: &'static str,
    /// The method of `LockPolicy` that it becomes.
    pub(crate) setter: &'static str,
    /// What is wrong with zero, if anything is.
    pub(crate) zero: Option<&'static str>,
}

/// The durations of the policy. Another one is a row here, and its name in [`OPTIONS`].
pub(crate) const TIMES: [TimeOption; 3] = [
    TimeOption {
        name: "wait",
        setter: "with_wait",
        zero: None,
    },
    TimeOption {
        name: "max_hold",
        setter: "with_max_hold",
        zero: Some(
            "a lock that is held for no time is lost before the body runs: give `max_hold` more, or \
             leave it out",
        ),
    },
    TimeOption {
        name: "at_least",
        setter: "with_at_least",
        zero: Some(
            "a lock that is kept for no time at least is any lock: give `at_least` more, or leave it out",
        ),
    },
];

/// Words of other lock libraries, and ours for the same thing.
const FAMILIAR: [(&str, &str); 31] = [
    ("timeout", "wait"),
    ("wait_time", "wait"),
    ("max_wait", "wait"),
    ("ttl", "max_hold"),
    ("lease", "max_hold"),
    ("lease_time", "max_hold"),
    ("expires", "max_hold"),
    ("hold", "max_hold"),
    ("lock_at_least_for", "at_least"),
    ("at_least_for", "at_least"),
    ("min_hold", "at_least"),
    ("count", "permits"),
    ("limit", "permits"),
    ("concurrency", "permits"),
    ("max_concurrency", "permits"),
    ("slots", "permits"),
    ("read", "shared"),
    ("reader", "shared"),
    ("readers", "shared"),
    ("share", "shared"),
    ("locks", "provider"),
    ("backend", "provider"),
    ("store", "provider"),
    ("contended", "busy"),
    ("conflict", "busy"),
    ("on_busy", "busy"),
    ("error", "refused"),
    ("on_error", "refused"),
    ("on_refused", "refused"),
    ("skip_if_locked", "skip"),
    ("lock", "guard"),
];

/// The arguments of the attribute.
#[derive(Default)]
pub(crate) struct Args {
    pub(crate) templates: Vec<LitStr>,
    pub(crate) provider: Option<Expr>,
    pub(crate) policy: Option<Expr>,
    /// As in [`TIMES`].
    pub(crate) times: [Option<Expr>; TIMES.len()],
    pub(crate) permits: Option<Expr>,
    /// The word itself, to point at.
    pub(crate) shared: Option<Ident>,
    pub(crate) busy: Option<Expr>,
    pub(crate) refused: Option<Expr>,
    /// The word itself, to point at.
    pub(crate) skip: Option<Ident>,
    pub(crate) guard: Option<Ident>,
    pub(crate) krate: Option<Path>,
}

impl Args {
    /// Reads what can be read; each mistake costs no more than its own argument.
    pub(crate) fn parse(tokens: TokenStream) -> (Self, Errors) {
        let mut args = Self::default();
        let mut errors = Errors::default();
        let parser = |input: ParseStream| {
            while !input.is_empty() {
                if let Err(error) = args.parse_one(input).and_then(|()| end_of_argument(input)) {
                    errors.push(error);
                    skip_argument(input)?;
                }
                input.parse::<Option<Token![,]>>()?;
            }
            Ok(())
        };
        let parsed = parser.parse2(tokens);
        errors.ok(parsed);
        (args, errors)
    }

    fn parse_one(&mut self, input: ParseStream) -> Result<()> {
        if input.peek(Lit) {
            return self.parse_template(input);
        }
        let Ok(key) = input.call(Ident::parse_any) else {
            let message =
                "expected a template in quotes, as in \"order:process:<id>\", or an option";
            return Err(Error::new(input.span(), message));
        };
        let name = key.to_string();
        if input.peek(Token![!]) {
            let message = "a template is a plain string, since it is checked when it compiles: write \
                           \"order:process:<id>\", where `<id>` is filled in at each call";
            return Err(Error::new(key.span(), message));
        }
        if input.peek(Token![:]) {
            let message = "a template is written in quotes: \"order:process:<id>\"";
            return Err(Error::new(key.span(), message));
        }
        if let Some(at) = TIMES.iter().position(|time| time.name == name) {
            let value = value(&key, input)?;
            return set(&mut self.times[at], &key, value);
        }
        match name.as_str() {
            "provider" => set(&mut self.provider, &key, value(&key, input)?),
            "policy" => set(&mut self.policy, &key, value(&key, input)?),
            "permits" => set(&mut self.permits, &key, value(&key, input)?),
            "busy" => set(&mut self.busy, &key, value(&key, input)?),
            "refused" => set(&mut self.refused, &key, value(&key, input)?),
            "guard" => {
                equals(&key, input)?;
                let Ok(name) = input.parse() else {
                    let message = "`guard` takes a new name for the guard, as in `guard = held`";
                    return Err(Error::new(input.span(), message));
                };
                set(&mut self.guard, &key, name)
            }
            "crate" => {
                equals(&key, input)?;
                set(&mut self.krate, &key, input.call(Path::parse_mod_style)?)
            }
            "shared" | "skip" if !at_end(input) => Err(Error::new(
                key.span(),
                format!("`{name}` takes no value: write just `{name}`"),
            )),
            "shared" => set(&mut self.shared, &key, key.clone()),
            "skip" => set(&mut self.skip, &key, key.clone()),
            _ => Err(unknown(&key, input)),
        }
    }

    fn parse_template(&mut self, input: ParseStream) -> Result<()> {
        match input.parse()? {
            Lit::Str(template) if template.suffix().is_empty() => {
                self.templates.push(template);
                Ok(())
            }
            other => Err(Error::new(
                other.span(),
                "a template is a plain string, as in \"order:process:<id>\"",
            )),
        }
    }
}

/// The option, whose value was read, is kept unless it was given before.
fn set<T>(option: &mut Option<T>, key: &Ident, value: T) -> Result<()> {
    if option.is_some() {
        return Err(Error::new(
            key.span(),
            format!("`{key}` is given twice: keep one of them"),
        ));
    }
    *option = Some(value);
    Ok(())
}

fn equals(key: &Ident, input: ParseStream) -> Result<()> {
    if input.parse::<Option<Token![=]>>()?.is_none() {
        return Err(Error::new(
            key.span(),
            format!("`{key}` needs a value: `{key} = ..`"),
        ));
    }
    if at_end(input) {
        return Err(Error::new(
            key.span(),
            format!("`{key} =` is not followed by a value"),
        ));
    }
    Ok(())
}

fn value(key: &Ident, input: ParseStream) -> Result<Expr> {
    equals(key, input)?;
    input.parse()
}

fn unknown(key: &Ident, input: ParseStream) -> Error {
    let name = key.to_string();
    let ours = FAMILIAR
        .iter()
        .find(|(theirs, _)| *theirs == name)
        .map(|(_, ours)| *ours);
    let hint = match ours.or_else(|| nearest(&name, OPTIONS)) {
        Some(option) => format!("did you mean `{option}`?"),
        None if at_end(input) => "a template is a string literal in quotes, since it is checked \
                                  when it compiles"
            .to_owned(),
        None => format!("the options are {}", list(OPTIONS)),
    };
    Error::new(key.span(), format!("there is no option `{name}`: {hint}"))
}

fn at_end(input: ParseStream) -> bool {
    input.is_empty() || input.peek(Token![,])
}

fn end_of_argument(input: ParseStream) -> Result<()> {
    if at_end(input) {
        return Ok(());
    }
    Err(Error::new(
        input.span(),
        "expected `,` between two arguments",
    ))
}

fn skip_argument(input: ParseStream) -> Result<()> {
    while !at_end(input) {
        input.parse::<TokenTree>()?;
    }
    Ok(())
}

/// Where to point when there is no argument to point at.
pub(crate) fn nowhere() -> Span {
    Span::call_site()
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;

    #[test]
    fn every_argument_is_read() {
        let (args, errors) = Args::parse(quote! {
            "order:process:<id>", "order:ship:<id>", provider = self.locks,
            policy = background_job, wait = "5s", max_hold = self.bound(), guard = held,
            at_least = "1s", permits = 5, shared,
            busy = Err(Busy { id, since: 0 }), refused = |error| page(error, 1),
            crate = my::locks,
        });
        assert!(errors.is_empty());
        assert_eq!(args.templates.len(), 2);
        assert!(matches!(args.refused, Some(Expr::Closure(_))));
        assert_eq!(args.guard.unwrap(), "held");
        assert_eq!(args.krate.unwrap().segments.len(), 2);
        assert!(args.skip.is_none());
        assert_eq!(args.shared.unwrap(), "shared");
        assert!(args.permits.is_some() && args.times.iter().all(Option::is_some));
    }

    #[test]
    fn every_duration_is_an_option() {
        for time in TIMES {
            assert!(OPTIONS.contains(&time.name), "{}", time.name);
        }
    }

    #[test]
    fn each_mistake_is_told_and_the_rest_is_read() {
        let (args, errors) = Args::parse(quote! {
            timeout = "5s", "job:x", skip = true, wait = , guard = 3 + 4, colour = red, 42
        });
        assert_eq!(args.templates.len(), 1);
        let texts = errors.texts();
        assert_eq!(texts.len(), 6, "{texts:#?}");
        assert!(texts[0].contains("did you mean `wait`"), "{}", texts[0]);
        assert!(texts[4].contains("the options are"), "{}", texts[4]);
    }

    #[test]
    fn a_comma_is_missed_in_the_right_place() {
        let (args, errors) = Args::parse(quote!("job:x" skip, wait = "1s"));
        assert_eq!(errors.texts(), ["expected `,` between two arguments"]);
        assert!(args.times[0].is_some());
    }
}
