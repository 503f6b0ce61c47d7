//! The names that a function's body can use: the bindings of its parameters.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::visit::{self, Visit};
use syn::{Attribute, FnArg, Ident, Pat, PatIdent, Signature, Stmt};

use crate::function::mentions;

/// What `#[async_trait]` calls `self` in the body.
const RENAMED_SELF: &str = "__self";

/// The bindings in scope where the body begins.
#[derive(Clone, Default)]
pub(crate) struct Params {
    bindings: Vec<Binding>,
    /// A pattern is written by a macro: there may be more than what is known.
    opaque: bool,
}

#[derive(Clone)]
struct Binding {
    ident: Ident,
    /// Parameters can be left out by configuration.
    cfg: Vec<Attribute>,
}

impl Params {
    /// What the patterns of this signature bind.
    pub(crate) fn of(sig: &Signature) -> Self {
        let mut params = Self::default();
        for input in &sig.inputs {
            match input {
                FnArg::Receiver(receiver) => {
                    params.push(
                        Ident::new("self", receiver.self_token.span),
                        &receiver.attrs,
                    );
                }
                FnArg::Typed(typed) => params.bind(&typed.pat, &typed.attrs),
            }
        }
        params
    }

    fn push(&mut self, ident: Ident, attrs: &[Attribute]) {
        let cfg = attrs
            .iter()
            .filter(|attr| attr.path().is_ident("cfg"))
            .cloned()
            .collect();
        self.bindings.retain(|binding| binding.ident != ident);
        self.bindings.push(Binding { ident, cfg });
    }

    /// Adds what a pattern binds.
    pub(crate) fn bind(&mut self, pat: &Pat, attrs: &[Attribute]) {
        struct Collect<'a> {
            params: &'a mut Params,
            attrs: &'a [Attribute],
        }

        impl Visit<'_> for Collect<'_> {
            fn visit_pat_ident(&mut self, pat: &PatIdent) {
                self.params.push(pat.ident.clone(), self.attrs);
                visit::visit_pat_ident(self, pat);
            }

            fn visit_pat(&mut self, pat: &Pat) {
                self.params.opaque |= matches!(pat, Pat::Macro(_) | Pat::Verbatim(_));
                visit::visit_pat(self, pat);
            }
        }

        Collect {
            params: self,
            attrs,
        }
        .visit_pat(pat);
    }

    /// Forgets a binding that has been moved elsewhere.
    pub(crate) fn remove(&mut self, name: &str) {
        self.bindings.retain(|binding| binding.ident != name);
    }

    /// Whether the body can use this name, as far as can be seen.
    pub(crate) fn has(&self, name: &Ident) -> bool {
        self.opaque || self.bindings.iter().any(|binding| binding.ident == *name)
    }

    /// The binding of this name, at its place in the signature.
    pub(crate) fn find(&self, name: &str) -> Option<&Ident> {
        self.bindings
            .iter()
            .map(|binding| &binding.ident)
            .find(|ident| *ident == name)
    }

    /// What `self` is called in the body, if `#[async_trait]` has renamed it.
    pub(crate) fn renamed_self(&self) -> Option<&'static str> {
        self.find(RENAMED_SELF).map(|_| RENAMED_SELF)
    }

    /// All names, for messages.
    pub(crate) fn names(&self) -> Vec<String> {
        (self
            .bindings
            .iter()
            .map(|binding| binding.ident.to_string()))
        .map(|name| {
            if name == RENAMED_SELF {
                "self".to_owned()
            } else {
                name
            }
        })
        .filter(|name| !name.starts_with("__"))
        .collect()
    }

    /// Statements that make an `async move` block take every parameter with it, also those which
    /// its body does not mention: they live as long as the others, and are dropped in the order in
    /// which a function drops its parameters. Those that `elsewhere` mentions are left alone.
    pub(crate) fn captured(&self, elsewhere: Option<&TokenStream>) -> TokenStream {
        // Captures are dropped in the order of their first mention, parameters in reverse.
        let captured = self.bindings.iter().rev().filter(|binding| {
            !elsewhere.is_some_and(|tokens| mentions(tokens, &binding.ident.to_string()))
        });
        let statements = captured.map(|Binding { ident, cfg }| {
            let unused = (ident.to_string().starts_with('_'))
                .then(|| quote!(#[allow(clippy::used_underscore_binding)]));
            quote!(#(#cfg)* #unused let _ = &#ident;)
        });
        quote!(#(#statements)*)
    }
}

/// The bindings that a `let` adds.
pub(crate) fn bind_local(params: &mut Params, statement: &Stmt) {
    if let Stmt::Local(local) = statement {
        params.bind(&local.pat, &local.attrs);
    }
}

/// Replaces `self` by what `#[async_trait]` calls it, which keeps its place and hygiene.
pub(crate) fn rename_self(tokens: impl ToTokens, name: &str) -> TokenStream {
    use proc_macro2::{Group, TokenTree};

    (tokens.into_token_stream().into_iter())
        .map(|tree| match tree {
            TokenTree::Ident(ident) if ident == "self" => Ident::new(name, ident.span()).into(),
            TokenTree::Group(group) => {
                let stream = rename_self(group.stream(), name);
                let mut renamed = Group::new(group.delimiter(), stream);
                renamed.set_span(group.span());
                TokenTree::Group(renamed)
            }
            other => other,
        })
        .collect()
}
