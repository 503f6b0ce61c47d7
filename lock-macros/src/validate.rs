//! Checking the arguments against each other and against the function: what remains is a plan that
//! only has to be written out.

use std::time::Duration;

use lock_grammar::{MAX_KEPT, MAX_PERMITS};
use proc_macro2::Span;
use syn::{
    Error, Expr, ExprCall, ExprLit, ExprPath, ExprUnary, Ident, Lit, LitStr, Path, Result, Type,
    UnOp,
};

use crate::args::{Args, TIMES, TimeOption, nowhere};
use crate::errors::Errors;
use crate::function::Body;
use crate::params::Params;
use crate::renamed::lock_core;
use crate::suggest::{choice, nearest};
use crate::template::Template;

/// The policies that have names.
const POLICIES: [&str; 3] = ["background_job", "user_request", "long_operation"];

/// The parameter that gives the provider by its name alone.
const LOCKS: &str = "locks";

/// What to expand to.
pub(crate) struct Plan {
    pub(crate) krate: Path,
    pub(crate) templates: Vec<Template>,
    pub(crate) provider: Provider,
    pub(crate) policy: Policy,
    pub(crate) permits: Option<Expr>,
    /// The word of the attribute, where the lock is held together with others.
    pub(crate) shared: Option<Ident>,
    pub(crate) busy: Option<Expr>,
    pub(crate) refusal: Refusal,
    pub(crate) guard: Option<Ident>,
}

/// Where the provider comes from.
pub(crate) enum Provider {
    Given(Expr),
    Parameter(Ident),
    Installed,
}

/// How long to wait and to hold.
pub(crate) struct Policy {
    pub(crate) base: Base,
    /// The setters that were given, with their values.
    pub(crate) times: Vec<(&'static str, Time)>,
}

/// What a policy starts from.
pub(crate) enum Base {
    Named(Ident),
    Given(Expr),
}

/// A duration.
pub(crate) enum Time {
    /// Read from this text.
    Fixed(Duration, Span),
    Given(Expr),
}

/// What the function returns when its body does not run, or not to its end.
pub(crate) enum Refusal {
    Converted,
    Skipped,
    Given(Expr),
}

impl Plan {
    /// Checks everything, and reports all that is wrong.
    pub(crate) fn check(args: Args, body: &Body, errors: &mut Errors) -> Option<Self> {
        let Args {
            templates,
            provider,
            policy,
            times,
            permits,
            shared,
            busy,
            refused,
            skip,
            guard,
            krate,
        } = args;
        let params = &body.params;
        let known = errors.is_empty();

        if templates.is_empty() && known {
            let message = "`#[distributed_lock]` needs the name of its lock, as in \
                           `#[distributed_lock(\"order:process:<id>\")]`";
            errors.push(Error::new(nowhere(), message));
        }
        errors.ok(distinct(&templates));
        let templates: Vec<_> = (templates.iter())
            .filter_map(|text| errors.ok(template(text, params)))
            .collect();
        let policy = Policy {
            base: errors
                .ok(base(policy, skip.is_some(), params))
                .unwrap_or_else(|| Base::Named(Ident::new(POLICIES[0], nowhere()))),
            times: (TIMES.iter().zip(times))
                .filter_map(|(option, value)| {
                    let time = errors.ok(time(option, value?))?;
                    Some((option.setter, time))
                })
                .collect(),
        };
        errors.ok(lasting(&policy.times));
        errors.ok(permitted(permits.as_ref(), templates.len()));
        if let Some(shared) = &shared {
            let is_kept = (policy.times.iter()).any(|(setter, _)| *setter == "with_at_least");
            errors.ok(sharable(
                shared,
                permits.is_some(),
                is_kept,
                templates.len(),
            ));
        }
        errors.ok(free(guard.as_ref(), params));
        if provider.is_none() {
            errors.ok(provides(params));
        }
        errors.ok(returns(&body.output));
        let refusal = errors.ok(refusal(skip, refused, busy.as_ref()));

        errors.is_empty().then(|| Self {
            krate: krate.unwrap_or_else(lock_core),
            templates,
            provider: match (provider, params.find(LOCKS)) {
                (Some(given), _) => Provider::Given(given),
                (None, Some(parameter)) => Provider::Parameter(parameter.clone()),
                (None, None) => Provider::Installed,
            },
            policy,
            permits,
            shared,
            busy,
            refusal: refusal.unwrap_or(Refusal::Converted),
            guard,
        })
    }
}

fn distinct(templates: &[LitStr]) -> Result<()> {
    for (at, template) in templates.iter().enumerate() {
        if templates[..at]
            .iter()
            .any(|earlier| earlier.value() == template.value())
        {
            let message = "this lock is named twice: once is enough";
            return Err(Error::new(template.span(), message));
        }
    }
    Ok(())
}

fn template(text: &LitStr, params: &Params) -> Result<Template> {
    let template = Template::parse(text)?;
    for value in &template.values {
        let found =
            params.has(&value.root) || (value.root == "self" && params.renamed_self().is_some());
        if !found {
            return Err(if value.root == "self" {
                let message = format!(
                    "placeholder `<{}>`: the function has no `self`; is it a method?",
                    value.source
                );
                Error::new(text.span(), message)
            } else {
                value.unknown(&params.names(), "the function", text.span())
            });
        }
    }
    Ok(template)
}

fn base(policy: Option<Expr>, skip: bool, params: &Params) -> Result<Base> {
    let Some(policy) = policy else {
        let name = if skip {
            "background_job"
        } else {
            "user_request"
        };
        return Ok(Base::Named(Ident::new(name, nowhere())));
    };
    let ident = match &policy {
        Expr::Path(ExprPath {
            qself: None, path, ..
        }) => path.get_ident(),
        Expr::Lit(ExprLit { lit, .. }) => {
            let message = format!(
                "a policy is {}, without quotes, or an expression; for how long to wait, write \
                 `wait = \"5s\"`",
                choice(POLICIES)
            );
            return Err(Error::new(lit.span(), message));
        }
        _ => None,
    };
    let Some(ident) = ident.filter(|ident| !params.has(ident)) else {
        return Ok(Base::Given(policy));
    };
    let name = ident.to_string();
    if POLICIES.contains(&name.as_str()) {
        return Ok(Base::Named(ident.clone()));
    }
    if name.starts_with(char::is_uppercase) {
        return Ok(Base::Given(policy)); // a constant
    }
    Err(Error::new(
        ident.span(),
        match nearest(&name, POLICIES) {
            Some(near) => format!("there is no policy `{name}`: did you mean `{near}`?"),
            None => format!(
                "there is no policy `{name}`: write {}, a constant or another expression",
                choice(POLICIES)
            ),
        },
    ))
}

/// A duration in quotes is read now, everything else when the function is called.
fn time(option: &TimeOption, expr: Expr) -> Result<Time> {
    let time = duration(option.name, expr)?;
    match (time, option.zero) {
        (Time::Fixed(Duration::ZERO, span), Some(wrong)) => Err(Error::new(span, wrong)),
        (time, _) => Ok(time),
    }
}

fn duration(option: &str, expr: Expr) -> Result<Time> {
    let unquoted = match &expr {
        Expr::Unary(ExprUnary {
            op: UnOp::Neg(_),
            expr,
            ..
        }) => expr,
        expr => expr,
    };
    let Expr::Lit(ExprLit { lit, .. }) = unquoted else {
        return Ok(Time::Given(expr));
    };
    let Lit::Str(text) = lit else {
        let message = format!(
            "a duration has a unit and is written in quotes: `{option} = \"5s\"`; other \
             expressions are a `Duration`"
        );
        return Err(Error::new_spanned(&expr, message));
    };
    let parsed = humantime::parse_duration(&text.value());
    parsed.map(|parsed| Time::Fixed(parsed, lit.span())).map_err(|error| {
        let text = text.value();
        let message = format!(
            "\"{text}\" is not a duration: {error}; write it like \"500ms\", \"5s\" or \"1m 30s\""
        );
        Error::new(lit.span(), message)
    })
}

/// Whether the lock is kept no longer than it may be, and be held, where that is in quotes.
fn lasting(times: &[(&'static str, Time)]) -> Result<()> {
    let fixed = |wanted: &str| {
        times.iter().find_map(|(setter, time)| match time {
            Time::Fixed(duration, span) if *setter == wanted => Some((*duration, *span)),
            _ => None,
        })
    };
    match (fixed("with_at_least"), fixed("with_max_hold")) {
        (Some((at_least, span)), _) if at_least > MAX_KEPT => {
            let message = "`at_least` is above a week: note in a table when the job ran, and ask that instead";
            Err(Error::new(span, message))
        }
        (Some((at_least, span)), Some((max_hold, _))) if at_least > max_hold => {
            let message = "`at_least` is above `max_hold`, after which the lock is lost and not kept: make \
                           `max_hold` the longer one";
            Err(Error::new(span, message))
        }
        _ => Ok(()),
    }
}

/// A number that is written out is judged now, any other when the function is called.
fn permitted(permits: Option<&Expr>, templates: usize) -> Result<()> {
    let Some(permits) = permits else {
        return Ok(());
    };
    if templates > 1 {
        let message =
            "`permits` goes with one lock: of several, take those with permits by hand, inside";
        return Err(Error::new_spanned(permits, message));
    }
    let number = match permits {
        Expr::Lit(ExprLit {
            lit: Lit::Int(number),
            ..
        }) => number.base10_parse::<usize>().ok(),
        Expr::Lit(_)
        | Expr::Unary(ExprUnary {
            op: UnOp::Neg(_), ..
        }) => None,
        _ => return Ok(()),
    };
    if number.is_some_and(|number| (1..=MAX_PERMITS).contains(&number)) {
        return Ok(());
    }
    let message = format!(
        "`permits` takes a number from 1 to {MAX_PERMITS}, as in `permits = 5`, or an expression: so many \
         may hold the lock at a time"
    );
    Err(Error::new_spanned(permits, message))
}

/// Whether there can be readers of such a lock.
fn sharable(shared: &Ident, has_permits: bool, is_kept: bool, templates: usize) -> Result<()> {
    let message = if has_permits {
        "`shared` and `permits` do not go together: any number of readers hold the lock together; keep one of \
         them"
    } else if is_kept {
        "`shared` and `at_least` do not go together: a reader closes the lock to no other reader; keep one of them"
    } else if templates > 1 {
        "`shared` goes with one lock: of several, take those that are shared by hand, inside"
    } else {
        return Ok(());
    };
    Err(Error::new(shared.span(), message))
}

fn free(guard: Option<&Ident>, params: &Params) -> Result<()> {
    let Some(guard) = guard.filter(|guard| params.find(&guard.to_string()).is_some()) else {
        return Ok(());
    };
    let message =
        format!("`guard = {guard}` would hide the parameter `{guard}`: choose a name that is free");
    Err(Error::new(guard.span(), message))
}

/// Types of the standard library that a parameter called `locks` can have for other reasons; of a type
/// that is not known here the compiler judges.
const NO_PROVIDERS: [&str; 27] = [
    "bool", "char", "str", "String", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16",
    "i32", "i64", "i128", "isize", "f32", "f64", "Vec", "VecDeque", "HashMap", "HashSet",
    "BTreeMap", "BTreeSet", "Option", "Duration", "PathBuf",
];

fn provides(params: &Params) -> Result<()> {
    let (Some(locks), Some(ty)) = (params.find(LOCKS), params.type_of(LOCKS)) else {
        return Ok(());
    };
    if !is_no_provider(ty) {
        return Ok(());
    }
    let message = "a parameter called `locks` gives the `LockProvider`, and this one has another type: \
                   call it otherwise, or say where locks come from: `provider = ..`";
    Err(Error::new(locks.span(), message))
}

fn is_no_provider(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => is_no_provider(&reference.elem),
        Type::Paren(inner) => is_no_provider(&inner.elem),
        Type::Group(inner) => is_no_provider(&inner.elem),
        Type::Array(_) | Type::Slice(_) | Type::Tuple(_) => true,
        Type::Path(path) => (path.path.segments.last())
            .is_some_and(|last| NO_PROVIDERS.iter().any(|known| last.ident == known)),
        _ => false,
    }
}

fn returns(output: &Type) -> Result<()> {
    let Type::Never(never) = output else {
        return Ok(());
    };
    let message = "a function that never returns would hold its lock for ever and could not say that \
                   it was refused: return `Result<(), E>` with `E: From<LockError>`, or lock each \
                   round of the work";
    Err(Error::new_spanned(never, message))
}

fn refusal(skip: Option<Ident>, refused: Option<Expr>, busy: Option<&Expr>) -> Result<Refusal> {
    match (skip, refused) {
        (Some(skip), Some(_)) => Err(Error::new(
            skip.span(),
            "`skip` and `refused` both say what a refusal returns: keep one of them",
        )),
        (Some(skip), None) if busy.is_some() => Err(Error::new(
            skip.span(),
            "`skip` and `busy` both say what a held lock returns: keep one of them (without `skip`, \
             `policy = background_job` still tries just once)",
        )),
        (Some(_), None) => Ok(Refusal::Skipped),
        (None, Some(refused)) if is_value(&refused) => Err(Error::new_spanned(
            refused,
            "`refused` takes a function of the error: `refused = |error| ..`",
        )),
        (None, Some(refused)) => Ok(Refusal::Given(refused)),
        (None, None) => Ok(Refusal::Converted),
    }
}

/// Whether this is plainly no function: the compiler's word for it is long.
fn is_value(expr: &Expr) -> bool {
    match expr {
        Expr::Lit(_) | Expr::Struct(_) | Expr::Tuple(_) | Expr::Array(_) => true,
        Expr::Call(ExprCall { func, .. }) => matches!(&**func, Expr::Path(path)
        if path.path.segments.last().is_some_and(|last| {
            last.ident.to_string().starts_with(char::is_uppercase)
        })),
        _ => false,
    }
}
