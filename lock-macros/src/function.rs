//! Parsing the item: a function whose body can be run as a whole, under a lock.
//!
//! The body of an `async fn` is never parsed, only moved, so that syntax which is newer than this
//! crate passes through.

use proc_macro2::{Delimiter, Group, Span, TokenStream};
use quote::{ToTokens, TokenStreamExt, quote};
use syn::parse::{Parse, ParseStream};
use syn::{
    Attribute, Error, Ident, Result, ReturnType, Signature, Token, Type, Visibility, braced,
};

use crate::boxed::Boxed;
use crate::params::{Params, mentions};

/// A function with a body.
pub(crate) struct Function {
    outer: Vec<Attribute>,
    inner: Vec<Attribute>,
    vis: Visibility,
    default: Option<Token![default]>,
    pub(crate) sig: Signature,
    /// Where the body's braces are.
    brace: Span,
    body: TokenStream,
}

/// What is to run locked, and what it can see.
pub(crate) struct Body {
    pub(crate) statements: TokenStream,
    pub(crate) brace: Span,
    /// What it returns.
    pub(crate) output: Type,
    pub(crate) params: Params,
    place: Place,
}

/// Where the body was taken from.
enum Place {
    Async,
    Boxed(Boxed),
}

impl Parse for Function {
    fn parse(input: ParseStream) -> Result<Self> {
        let outer = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let default = input.parse()?;
        let sig: Signature = input.parse().map_err(|_| {
            let message = "`#[distributed_lock]` goes on an `async fn`: on a function or a method \
                           with a body";
            Error::new(input.span(), message)
        })?;
        if input.peek(Token![;]) {
            return Err(Error::new(
                sig.ident.span(),
                "a method without a body has nothing to lock: move `#[distributed_lock]` to its \
                 implementation",
            ));
        }
        let content;
        let brace = braced!(content in input);
        Ok(Self {
            outer,
            inner: content.call(Attribute::parse_inner)?,
            vis,
            default,
            sig,
            brace: brace.span.join(),
            body: content.parse()?,
        })
    }
}

impl Function {
    /// Takes the body out, or says why it cannot be run locked.
    pub(crate) fn body(&self) -> Result<Body> {
        let Self {
            sig, brace, body, ..
        } = self;
        if sig.asyncness.is_some() {
            return Ok(Body {
                statements: body.clone(),
                brace: *brace,
                output: output(&sig.output, sig.ident.span()),
                params: Params::of(sig),
                place: Place::Async,
            });
        }
        let Some((boxed, found)) = Boxed::find(sig, body) else {
            return Err(self.not_async());
        };
        Ok(Body {
            statements: found.statements,
            brace: found.brace,
            output: found.output,
            params: found.params,
            place: Place::Boxed(boxed),
        })
    }

    fn not_async(&self) -> Error {
        let Self { sig, body, .. } = self;
        // What is left of an `async fn` when `#[tokio::main]` has been there.
        let message = if mentions(body, "block_on") {
            "`#[distributed_lock]` needs the `async fn`, and an attribute above it has made a plain \
             one of it: move `#[tokio::main]` or `#[tokio::test]` below `#[distributed_lock]`"
        } else if mentions(&sig.output.to_token_stream(), "Future") {
            "`#[distributed_lock]` needs the body of the future: write it as an `async fn`"
        } else {
            "`#[distributed_lock]` waits for its lock: make this an `async fn`"
        };
        Error::new(sig.fn_token.span, message)
    }

    /// Whether a parameter has this name.
    pub(crate) fn binds(&self, name: &Ident) -> bool {
        Params::of(&self.sig).find(&name.to_string()).is_some()
    }

    /// The function with these statements before its own.
    pub(crate) fn with_prelude(&self, statements: Option<TokenStream>) -> TokenStream {
        let body = &self.body;
        self.with(&quote!(#statements #body))
    }

    /// The function with this instead of what [`body`](Self::body) took out.
    pub(crate) fn with_locked(&self, body: &Body, locked: TokenStream) -> TokenStream {
        match &body.place {
            Place::Async => self.with(&locked),
            Place::Boxed(boxed) => self.with(&boxed.with(locked)),
        }
    }

    fn with(&self, body: &TokenStream) -> TokenStream {
        let Self {
            outer,
            inner,
            vis,
            default,
            sig,
            ..
        } = self;
        let mut tokens = quote!(#(#outer)* #vis #default #sig);
        let mut block = Group::new(Delimiter::Brace, quote!(#(#inner)* #body));
        block.set_span(self.brace);
        tokens.append(block);
        tokens
    }
}

/// What a signature returns; errors about a unit that is not written are shown at `span`.
pub(crate) fn output(output: &ReturnType, span: Span) -> Type {
    match output {
        ReturnType::Type(_, ty) => (**ty).clone(),
        ReturnType::Default => {
            let mut unit = Group::new(Delimiter::Parenthesis, TokenStream::new());
            unit.set_span(span);
            Type::Verbatim(unit.into_token_stream())
        }
    }
}
