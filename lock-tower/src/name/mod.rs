//! What a request locks: the parameters of a template, or a name that a closure makes.

#[cfg_attr(feature = "axum", path = "axum_route.rs")]
mod route;
mod value;

use std::fmt;
#[cfg(feature = "axum")]
use std::str::FromStr;
use std::sync::Arc;

use http::request::Parts;
use lock_core::{DistributedLock, LockError, LockName, LockProvider, LockTemplate};

#[cfg(feature = "axum")]
pub(crate) use route::listed;
pub(crate) use route::{Route, RouteParams};
pub use value::ParamValue;

type KeyFn = dyn Fn(&Parts) -> Result<LockName, LockError> + Send + Sync;
type ParamFn = dyn Fn(&Parts) -> Result<Option<String>, LockError> + Send + Sync;

/// A parameter of the template that is not just the text in the path.
#[derive(Clone)]
pub(crate) struct Param {
    name: Box<str>,
    value: ParamSource,
}

#[derive(Clone)]
enum ParamSource {
    /// A closure reads it from the head of the request.
    Head(Arc<ParamFn>),
    /// That of the route, as its type prints it; `None` for what is none of the type.
    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "no routes"))]
    Typed(fn(&str) -> Option<String>),
}

impl Param {
    pub(crate) fn new<F, V>(name: &str, read: F) -> Self
    where
        F: Fn(&Parts) -> V + Send + Sync + 'static,
        V: ParamValue,
    {
        Self {
            name: name.into(),
            value: ParamSource::Head(Arc::new(move |parts: &Parts| read(parts).into_value())),
        }
    }

    /// A parameter of the route that is parsed and printed: what is one value to a handler is one lock.
    #[cfg(feature = "axum")]
    pub(crate) fn typed<T: FromStr + fmt::Display>(name: &str) -> Self {
        let print = |text: &str| text.parse::<T>().ok().map(|value| value.to_string());
        Self {
            name: name.into(),
            value: ParamSource::Typed(print),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn is_of_route(&self) -> bool {
        matches!(self.value, ParamSource::Typed(_))
    }

    fn value(&self, parts: &Parts, route: Option<&str>) -> Result<String, LockError> {
        let name = &self.name;
        match &self.value {
            ParamSource::Head(read) => read(parts)?.ok_or_else(|| {
                LockError::invalid_name(format!("the request has no value for `{name}`"))
            }),
            // Never the text instead: it would be another lock than that of the value.
            ParamSource::Typed(print) => route.and_then(print).ok_or_else(|| {
                LockError::invalid_name(format!("`{name}` of the route is not of its type"))
            }),
        }
    }
}

impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Param").field(&self.name).finish()
    }
}

/// How the name of the lock is made from a request.
#[derive(Clone)]
pub(crate) struct Naming {
    template: LockTemplate,
    /// Those that closures read; the others are parameters of the route.
    params: Vec<Param>,
    key: Option<Arc<KeyFn>>,
}

impl Naming {
    pub(crate) fn new<T>(template: T) -> Result<Self, LockError>
    where
        T: TryInto<LockTemplate, Error: Into<LockError>>,
    {
        let template = template.try_into().map_err(Into::into)?;
        template.permit_count()?;
        Ok(Self {
            template,
            params: Vec::new(),
            key: None,
        })
    }

    pub(crate) fn template(&self) -> &LockTemplate {
        &self.template
    }

    pub(crate) fn set_permits(&mut self, number: usize) {
        self.template = self.template.clone().permits(number);
    }

    pub(crate) fn set_shared(&mut self) {
        self.template = self.template.clone().shared();
    }

    /// The lock of this name, or so many permits of it, or for a reader.
    pub(crate) fn lock(
        &self,
        locks: &LockProvider,
        name: LockName,
    ) -> Result<DistributedLock, LockError> {
        lock_of(&self.template, locks, name)
    }

    /// Whether the template names this parameter, and nothing gives it yet.
    #[cfg(feature = "axum")]
    pub(crate) fn lacks(&self, param: &Param) -> bool {
        self.template.params().any(|name| name == param.name())
            && self.param(param.name()).is_none()
    }

    /// A later one of the same name replaces an earlier one.
    pub(crate) fn add_param(&mut self, param: Param) {
        self.params.retain(|known| known.name != param.name);
        self.params.push(param);
    }

    pub(crate) fn set_key<F, N>(&mut self, key: F)
    where
        F: Fn(&Parts) -> N + Send + Sync + 'static,
        N: TryInto<LockName, Error: Into<LockError>>,
    {
        self.key = Some(Arc::new(move |parts: &Parts| {
            key(parts).try_into().map_err(Into::into)
        }));
    }

    /// The parameters that the route has to have.
    pub(crate) fn route_params(&self) -> impl Iterator<Item = &str> {
        let all = self.key.is_none().then(|| self.template.params());
        all.into_iter()
            .flatten()
            .filter(|name| self.param(name).is_none_or(Param::is_of_route))
    }

    fn param(&self, name: &str) -> Option<&Param> {
        self.params.iter().find(|param| *param.name == *name)
    }

    /// The name of the lock for this request.
    pub(crate) fn name(&self, parts: &mut Parts) -> Result<LockName, LockError> {
        self.check_params()?;
        if let Some(key) = &self.key {
            return key(parts);
        }
        let route = match self.route_params().next() {
            Some(_) => Some(RouteParams::of(parts)?),
            None => None,
        };
        let parts = &*parts;
        let mut refused = None;
        let values = self.template.params().map(|name| {
            let of_route = || match &route {
                Some(route) => route.get(name, &self.template).map(Some),
                None => Ok(None),
            };
            let value = match self.param(name) {
                Some(param) if param.is_of_route() => of_route()
                    .and_then(|text| param.value(parts, text))
                    .map(Value::Read),
                Some(param) => param.value(parts, None).map(Value::Read),
                None => of_route().map(|text| text.map_or(Value::None, Value::Route)),
            };
            let value = value.unwrap_or_else(|error| {
                refused.get_or_insert(error);
                Value::None
            });
            (name, value)
        });
        let name = self.template.fill(values);
        // A value that is not there leaves its place empty, which `fill` refuses as well.
        match refused {
            Some(error) => Err(error),
            None => name,
        }
    }

    /// That each value which is read is asked for: a lock that leaves one out is another lock.
    fn check_params(&self) -> Result<(), LockError> {
        if let (Some(_), Some(param)) = (&self.key, self.params.first()) {
            return Err(LockError::misconfigured(format!(
                "`.key(..)` makes the whole name of the lock, without the value of `.param(\"{}\", ..)` or \
                 `.param_as`; remove one of the two",
                param.name
            )));
        }
        let is_unknown = |param: &&Param| !self.template.params().any(|name| name == param.name());
        match self.params.iter().find(is_unknown) {
            Some(param) => Err(LockError::misconfigured(format!(
                "`.param(\"{}\", ..)` or `.param_as` gives a value that the template `{}` does not name",
                param.name, self.template
            ))),
            None => Ok(()),
        }
    }
}

/// The lock of this name that a template stands for: so many permits of it, where the template says how many, or for
/// a reader, where it is shared.
pub(crate) fn lock_of(
    template: &LockTemplate,
    locks: &LockProvider,
    name: LockName,
) -> Result<DistributedLock, LockError> {
    let lock = locks.lock(name)?;
    Ok(match template.permit_count()? {
        Some(number) => lock.permits(number),
        None if template.is_shared() => lock.shared(),
        None => lock,
    })
}

impl fmt::Debug for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Naming")
            .field("template", &self.template.as_str())
            .field("params", &self.params)
            .field("key", &self.key.is_some())
            .finish()
    }
}

/// The value of a parameter, borrowed from the route where it can be.
enum Value<'a> {
    Route(&'a str),
    Read(String),
    None,
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route(text) => f.write_str(text),
            Self::Read(text) => f.write_str(text),
            Self::None => Ok(()),
        }
    }
}
