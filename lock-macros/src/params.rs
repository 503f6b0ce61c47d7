//! The names that a function's body can use: the bindings of its parameters.

use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::visit::{self, Visit};
use syn::{Attribute, FnArg, Ident, Pat, PatIdent, Signature, Stmt, Token, Type};

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
    /// Of a parameter that is one name.
    ty: Option<Type>,
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
                FnArg::Typed(typed) => {
                    params.bind(&typed.pat, &typed.attrs);
                    if let (Pat::Ident(_), Some(binding)) =
                        (&*typed.pat, params.bindings.last_mut())
                    {
                        binding.ty = Some((*typed.ty).clone());
                    }
                }
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
        let ty = None;
        self.bindings.push(Binding { ident, cfg, ty });
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

    /// The type of the parameter of this name, where it is written beside the name alone.
    pub(crate) fn type_of(&self, name: &str) -> Option<&Type> {
        let mut bindings = self.bindings.iter();
        bindings.find(|binding| binding.ident == name)?.ty.as_ref()
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

    /// How an `async` block takes every parameter with it, also those which its body does not
    /// mention: they live as long as the others, and are dropped in the order in which a function drops
    /// its parameters. Those that `elsewhere` mentions stay outside, and the body can borrow them.
    pub(crate) fn captured(&self, elsewhere: Option<&TokenStream>) -> Captured {
        // Captures are dropped in the order of their first mention, parameters in reverse.
        let (borrowed, taken): (Vec<_>, Vec<_>) = self.bindings.iter().rev().partition(|binding| {
            elsewhere.is_some_and(|tokens| mentions(tokens, &binding.ident.to_string()))
        });
        let each = |statement: fn(&Ident) -> TokenStream| {
            let statements = taken.iter().map(move |Binding { ident, cfg, .. }| {
                let unused = (ident.to_string().starts_with('_'))
                    .then(|| quote!(#[allow(clippy::used_underscore_binding)]));
                let statement = statement(ident);
                quote!(#(#cfg)* #unused #statement)
            });
            quote!(#(#statements)*)
        };
        let mentioned = each(|ident| quote!(let _ = &#ident;));
        if borrowed.is_empty() {
            let mode = Some(<Token![move]>::default());
            return Captured {
                mode,
                statements: mentioned,
            };
        }
        // Without `move` the block takes what it moves somewhere, also where it never comes to.
        let moved = each(|ident| {
            let moved = Ident::new("__lock_moved", Span::mixed_site());
            quote!(let #moved = #ident;)
        });
        let never = Ident::new("__lock_never", Span::mixed_site());
        let statements = quote! {
            #mentioned
            if let ::core::option::Option::Some(#never) =
                ::core::option::Option::None::<::core::convert::Infallible>
            {
                #moved
                match #never {}
            }
        };
        Captured {
            mode: None,
            statements,
        }
    }
}

/// How a block takes the parameters that it sees.
pub(crate) struct Captured {
    /// Whether it takes all that it mentions.
    pub(crate) mode: Option<Token![move]>,
    /// What it begins with.
    pub(crate) statements: TokenStream,
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

/// Whether a name occurs in these tokens, be it in a format string.
pub(crate) fn mentions(tokens: &TokenStream, name: &str) -> bool {
    // Format strings have `{type}` where code has `r#type`.
    let in_text = format!("{{{}", name.strip_prefix("r#").unwrap_or(name));
    tokens.clone().into_iter().any(|tree| match tree {
        TokenTree::Group(group) => mentions(&group.stream(), name),
        TokenTree::Ident(ident) => ident == name,
        TokenTree::Literal(literal) => literal.to_string().contains(&in_text),
        TokenTree::Punct(_) => false,
    })
}
