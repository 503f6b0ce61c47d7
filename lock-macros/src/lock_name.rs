//! `lock_name!`: a template and what it captures, as `format!` would.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Expr, ExprField, ExprMethodCall, LitStr, Path, Result, Token};

use crate::errors::Errors;
use crate::expand;
use crate::renamed::lock_core;
use crate::template::Template;

/// `"template", name = expression, ..`
pub(crate) struct LockName {
    text: LitStr,
    values: Vec<(Ident, Expr)>,
    krate: Option<Path>,
}

impl Parse for LockName {
    fn parse(input: ParseStream) -> Result<Self> {
        let Ok(text) = input.parse() else {
            let message = "`lock_name!` begins with its template, a string literal: \
                           `lock_name!(\"order:process:<id>\")`";
            return Err(Error::new(input.span(), message));
        };
        let mut parsed = Self {
            text,
            values: Vec::new(),
            krate: None,
        };
        while !input.is_empty() {
            input.parse::<Token![,]>()?;
            if input.is_empty() {
                break;
            }
            parsed.parse_value(input)?;
        }
        Ok(parsed)
    }
}

impl LockName {
    fn parse_value(&mut self, input: ParseStream) -> Result<()> {
        let positional = "a value has the name of its placeholder: write `id = expression`, or only \
                          `<id>` for a variable that is in scope";
        let ahead = input.fork();
        if ahead.call(Ident::parse_any).is_err() || !ahead.peek(Token![=]) || ahead.peek(Token![==])
        {
            return Err(Error::new(input.span(), positional));
        }
        let name = input.call(Ident::parse_any)?;
        input.parse::<Token![=]>()?;
        if name == "crate" {
            self.krate = Some(input.call(Path::parse_mod_style)?);
            return Ok(());
        }
        if self.values.iter().any(|(earlier, _)| *earlier == name) {
            return Err(Error::new(
                name.span(),
                format!("`{name}` is given twice: keep one of them"),
            ));
        }
        self.values.push((name, input.parse()?));
        Ok(())
    }

    /// An expression that is a `Result<LockName, LockError>`.
    pub(crate) fn expand(&self) -> std::result::Result<TokenStream, Errors> {
        let Self {
            text,
            values,
            krate,
        } = self;
        let mut errors = Errors::default();
        let template = errors.ok(Template::parse(text));
        if let Some(template) = &template {
            for (name, _) in values {
                if !template.values.iter().any(|value| value.root == *name) {
                    let message = format!(
                        "the template has no placeholder `<{name}>`: use it, or leave the value out"
                    );
                    errors.push(Error::new(name.span(), message));
                }
            }
        }
        let Some(template) = template.filter(|_| errors.is_empty()) else {
            return Err(errors);
        };

        // Every expression once, and its temporaries until the name is made.
        let given: Vec<_> = values.iter().map(|(_, expr)| expr).collect();
        let bound: Vec<_> = (0..values.len())
            .map(|at| Ident::new(&format!("__lock_value_{at}"), Span::mixed_site()))
            .collect();
        let krate = krate.clone().unwrap_or_else(lock_core);
        let name = expand::name(&template, &krate, |expr| {
            let mut expr = expr.clone();
            let root = root_mut(&mut expr);
            if let Some(at) = values.iter().position(|(name, _)| is_ident(root, name)) {
                let value = &bound[at];
                *root = syn::parse_quote!(#value);
            }
            expr.to_token_stream()
        });
        Ok(match &given[..] {
            [] => name,
            _ => quote! {
                match (#(&#given,)*) {
                    (#(#bound,)*) => #name
                }
            },
        })
    }
}

/// What a placeholder's path begins with; the template has checked that it is one.
fn root_mut(expr: &mut Expr) -> &mut Expr {
    match expr {
        Expr::Field(ExprField { base: inner, .. })
        | Expr::MethodCall(ExprMethodCall {
            receiver: inner, ..
        }) => root_mut(inner),
        root => root,
    }
}

fn is_ident(expr: &Expr, name: &Ident) -> bool {
    matches!(expr, Expr::Path(path) if path.path.is_ident(name))
}
