//! Checking a template, and what its placeholders ask for.

use lock_grammar::Template as Grammar;
use syn::{Error, Expr, ExprField, ExprMethodCall, ExprPath, Ident, LitStr, Result};

use crate::suggest::{list, nearest};

/// A template that is in order.
pub(crate) struct Template {
    pub(crate) text: LitStr,
    /// One for each placeholder, in order.
    pub(crate) values: Vec<Value>,
}

/// What a placeholder is filled with.
pub(crate) struct Value {
    /// As it was written.
    pub(crate) source: String,
    pub(crate) expr: Expr,
    /// The name that it begins with: a parameter, a variable, `self`.
    pub(crate) root: Ident,
}

impl Template {
    /// Checks the convention, the length, and each placeholder.
    pub(crate) fn parse(text: &LitStr) -> Result<Self> {
        let content = text.value();
        let grammar =
            Grammar::parse(&content).map_err(|error| Error::new(text.span(), error.to_string()))?;
        let values = (grammar.placeholders())
            .map(|placeholder| Value::parse(placeholder.source, text))
            .collect::<Result<_>>()?;
        Ok(Self {
            text: text.clone(),
            values,
        })
    }
}

impl Value {
    fn parse(source: &str, text: &LitStr) -> Result<Self> {
        let fail = |why: &str| {
            let message = format!(
                "placeholder `<{source}>`: {why}; a placeholder is a parameter, a field of it, or \
                 a method call without arguments: `<id>`, `<cmd.order_id>`, `<id.0>`, `<user.id()>`"
            );
            Error::new(text.span(), message)
        };
        let expr: Expr = LitStr::new(source, text.span())
            .parse()
            .map_err(|_| fail("this is not an expression"))?;
        let root = root(&expr).map_err(fail)?.clone();
        Ok(Self {
            source: source.to_owned(),
            expr,
            root,
        })
    }

    /// The mistake of asking for what is not among `known`; `owner` is who has those.
    pub(crate) fn unknown(&self, known: &[String], owner: &str, span: proc_macro2::Span) -> Error {
        let Self { source, root, .. } = self;
        let mut message = format!("placeholder `<{source}>`: {owner} has no parameter `{root}`");
        let known = || known.iter().map(String::as_str);
        match nearest(&root.to_string(), known()) {
            Some(near) => message += &format!("; did you mean `{near}`?"),
            None if known().next().is_some() => message += &format!("; it has {}", list(known())),
            None => message += "; it has none at all",
        }
        Error::new(span, message)
    }
}

/// The name that a path of fields and calls begins with.
fn root(expr: &Expr) -> std::result::Result<&Ident, &'static str> {
    match expr {
        Expr::Path(ExprPath {
            qself: None, path, ..
        }) => path.get_ident().ok_or("paths with `::` are not parameters"),
        Expr::Field(ExprField { base, .. }) => root(base),
        Expr::MethodCall(ExprMethodCall { args, .. }) if !args.is_empty() => {
            Err("the call has arguments")
        }
        Expr::MethodCall(ExprMethodCall {
            turbofish: Some(_), ..
        }) => Err("the call has type arguments"),
        Expr::MethodCall(ExprMethodCall { receiver, .. }) => root(receiver),
        Expr::Lit(_) => Err("a literal needs no placeholder"),
        _ => Err("this kind of expression is not allowed"),
    }
}

#[cfg(test)]
mod tests {
    use proc_macro2::Span;

    use super::*;

    fn parse(text: &str) -> Result<Template> {
        Template::parse(&LitStr::new(text, Span::call_site()))
    }

    #[test]
    fn placeholders_are_paths_of_fields_and_calls() {
        let template =
            parse("a:b:<id>:<cmd.order_id:hashed>:<id.0.1>").expect("a template in order");
        let roots: Vec<_> = template
            .values
            .iter()
            .map(|value| value.root.to_string())
            .collect();
        assert_eq!(roots, ["id", "cmd", "id"]);
        let template = parse("a:b:<self.user().id()>:<r#type>").expect("a template in order");
        let roots: Vec<_> = template
            .values
            .iter()
            .map(|value| value.root.to_string())
            .collect();
        assert_eq!(roots, ["self", "r#type"]);
    }

    #[test]
    fn other_expressions_are_refused_by_name() {
        for source in [
            "f(x)", "x.get(1)", "a::B", "1", "x[0]", "a + b", "x.await", "x?", "%", "&x",
        ] {
            let Err(error) = parse(&format!("a:b:<{source}>")) else {
                panic!("`{source}` was accepted");
            };
            assert!(
                error.to_string().contains(&format!("`<{source}>`")),
                "{error}"
            );
        }
    }
}
