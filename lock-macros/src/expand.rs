//! Writing it out.
//!
//! ```text
//! async fn f(ARGS) -> R {
//!     let refuse = <R as Refused>::refused;                   // or what `refused =`, `skip` say
//!     let lock = match lock(provider(&PROVIDER), NAME) { .. };    // borrows nothing of ARGS
//!     let lock = lock.permits(N);                                 // with `permits =`
//!     let lock = lock.shared();                                   // with `shared`
//!     let policy = POLICY;                                        // its temporaries end here
//!     let guard = match lock.acquire(policy).await { .. };
//!     let outcome = {
//!         let work = pin!(async move {                        // pinned here: it is never moved
//!             let _ = &arg; ..                                // takes all of ARGS along, but for
//!                                                             // what `refused =` mentions
//!             if let Some(ret) = None::<R> { return ret; }    // types `?` and `return`
//!             STATEMENTS
//!         });
//!         catch(guard.protect(work)).await
//!     };
//!     match finish(guard, outcome).await { Ok(value) => value, Err(error) => refuse(error) }
//! }
//! ```
//!
//! Local names are hygienic, paths absolute; what the user wrote keeps its spans, so that errors in it
//! are shown where it was written.

use proc_macro2::{Delimiter, Group, Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit_mut::{self, VisitMut};
use syn::{Expr, Path, Type};

use crate::function::Body;
use crate::params::{Captured, rename_self};
use crate::renamed::lock_core;
use crate::template::Template;
use crate::validate::{Base, Plan, Policy, Provider, Refusal, Time};

/// The statements that run the body locked.
pub(crate) fn locked(plan: &Plan, body: &Body) -> TokenStream {
    let private = Private(&plan.krate);
    let output = Output::of(&body.output);
    let attribute = Attribute {
        renamed_self: body.params.renamed_self(),
    };
    // Names that the user's code cannot see, nor hide.
    let local = |name| Ident::new(name, Span::mixed_site());
    let (refuse, lock, wait) = (
        local("__lock_refuse"),
        local("__lock"),
        local("__lock_policy"),
    );
    let (guard, work, outcome) = (
        local("__lock_guard"),
        local("__lock_work"),
        local("__lock_outcome"),
    );
    let (value, error) = (local("__lock_value"), local("__lock_error"));

    let refusal = refusal(plan, &output, &attribute, &private);
    let lock_value = lock_value(plan, &attribute, &private);
    let policy = policy(&plan.policy, &plan.krate, &attribute);
    let permits = plan.permits.as_ref().map(|permits| {
        let number = attribute.tokens(permits);
        quote_spanned!(permits.span()=> let #lock = #lock.permits(#number);)
    });
    let shared = (plan.shared.as_ref())
        .map(|shared| quote_spanned!(shared.span()=> let #lock = #lock.shared();));
    let busy = plan.busy.as_ref().map(|busy| {
        let busy = attribute.tokens(busy);
        quote!(::core::result::Result::Err(#error) if #error.is_contended() => return #busy,)
    });
    let held = plan.guard.as_ref().map(|held| {
        let mut guard = guard.clone();
        // Borrowed where it is named: there the compiler refuses a body that keeps it.
        let span = held.span().resolved_at(Span::mixed_site());
        guard.set_span(span);
        quote_spanned!(span=> let #held = &#guard;)
    });
    let block = block(plan, body, &output, &attribute);

    quote! {
        let #refuse = #refusal;
        let #lock = #lock_value;
        let #lock = match #lock {
            ::core::result::Result::Ok(#lock) => #lock,
            ::core::result::Result::Err(#error) => {
                #private::consume_budget().await;
                return #refuse(#error);
            }
        };
        #permits
        #shared
        let #wait = #policy;
        let #guard = match #lock.acquire(#wait).await {
            ::core::result::Result::Ok(#guard) => #guard,
            #busy
            ::core::result::Result::Err(#error) => return #refuse(#error),
        };
        #held
        let #outcome = {
            let #work = ::core::pin::pin!(#block);
            #private::catch(#guard.protect(#work)).await
        };
        match #private::finish(#guard, #outcome).await {
            ::core::result::Result::Ok(#value) => #value,
            ::core::result::Result::Err(#error) => #refuse(#error),
        }
    }
}

/// What goes before the body where the attribute has mistakes: it explains the guard to the compiler,
/// so that its every use is not a second mistake. It never runs.
pub(crate) fn explained_guard(
    guard: &Ident,
    templates: usize,
    krate: Option<&Path>,
) -> TokenStream {
    let krate = krate.cloned().unwrap_or_else(lock_core);
    let ty = if templates > 1 {
        quote!(LockGuards)
    } else {
        quote!(LockGuard)
    };
    quote! {
        #[allow(unused_variables)]
        let #guard: &#krate::#ty = ::core::option::Option::None.unwrap();
    }
}

/// `Template`, filled: a `Result<LockName, LockError>`.
pub(crate) fn name(
    template: &Template,
    krate: &Path,
    value: impl Fn(&Expr) -> TokenStream,
) -> TokenStream {
    let private = Private(krate);
    let text = &template.text;
    let values = template.values.iter().map(|placeholder| {
        let expr = value(&placeholder.expr);
        quote_spanned!(text.span()=> #private::value(&#expr))
    });
    quote! {
        {
            static __LOCK_TEMPLATE: #private::StaticTemplate = #private::StaticTemplate::new(#text);
            __LOCK_TEMPLATE.fill(&[#(#values),*])
        }
    }
}

/// The function that makes the return value of a refusal.
fn refusal(
    plan: &Plan,
    output: &Output,
    attribute: &Attribute,
    private: &Private<'_>,
) -> TokenStream {
    let Output { ty, span, .. } = output;
    match &plan.refusal {
        Refusal::Converted => quote_spanned!(*span=> <#ty as #private::Refused>::refused),
        Refusal::Skipped => quote_spanned!(*span=> <#ty as #private::Skipped>::skipped),
        Refusal::Given(refused) => {
            let tokens = attribute.tokens(refused);
            quote_spanned!(refused.span()=> #private::refuse_with::<#ty, _>(#tokens))
        }
    }
}

/// What is to be locked, or why it cannot be.
fn lock_value(plan: &Plan, attribute: &Attribute, private: &Private<'_>) -> TokenStream {
    let names: Vec<_> = (plan.templates.iter())
        .map(|template| name(template, &plan.krate, |expr| attribute.tokens(expr)))
        .collect();
    let lock = |provider: TokenStream| match &names[..] {
        [only] => quote!(#private::lock(#provider, #only)),
        _ => quote!(#private::locks(#provider, [#(#names),*])),
    };
    let (expr, span) = match &plan.provider {
        Provider::Installed => return lock(quote!(#private::installed())),
        Provider::Given(given) => (attribute.tokens(given), given.span()),
        Provider::Parameter(locks) => (locks.to_token_stream(), locks.span()),
    };
    // Matched, and not passed, so that nothing is expected of it that `?` would not give.
    let found = Ident::new("__lock_provider", span.resolved_at(Span::mixed_site()));
    let lock = lock(quote_spanned!(span=> #private::provider(#found)));
    quote!(match &#expr { #found => #lock })
}

fn policy(policy: &Policy, krate: &Path, attribute: &Attribute) -> TokenStream {
    let private = Private(krate);
    let base = match &policy.base {
        Base::Named(name) => quote!(#krate::LockPolicy::#name()),
        Base::Given(expr) => {
            let tokens = attribute.tokens(expr);
            quote_spanned!(expr.span()=> #private::policy(#tokens))
        }
    };
    let time = |time: &Time| match time {
        Time::Fixed(duration, _) => {
            let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
            quote!(::core::time::Duration::new(#seconds, #nanos))
        }
        Time::Given(expr) => attribute.tokens(expr),
    };
    let setters = policy.times.iter().map(|(setter, value)| {
        let (setter, value) = (Ident::new(setter, Span::call_site()), time(value));
        quote!(.#setter(#value))
    });
    quote!(#base #(#setters)*)
}

/// The `async` block in which the user's statements run.
fn block(plan: &Plan, body: &Body, output: &Output, attribute: &Attribute) -> TokenStream {
    // A closure keeps what it mentions: it has to outlive the body, which can only borrow it.
    let refused = match &plan.refusal {
        Refusal::Given(refused) => Some(attribute.tokens(refused)),
        Refusal::Converted | Refusal::Skipped => None,
    };
    let Captured {
        mode,
        statements: captured,
    } = body.params.captured(refused.as_ref());
    let ret = Ident::new("__lock_ret", Span::mixed_site());
    let ty = &output.ty;
    let typed = (!output.is_inferred()).then(|| {
        quote! {
            if let ::core::option::Option::Some(#ret) = ::core::option::Option::None::<#ty> {
                #[allow(unreachable_code)]
                return #ret;
            }
        }
    });
    let statements = &body.statements;
    let mut block = Group::new(Delimiter::Brace, quote!(#captured #typed #statements));
    // The user's braces for messages, the macro's for lints.
    block.set_span(body.brace.resolved_at(Span::mixed_site()));
    quote!(async #mode #block)
}

/// The return type as it can be written in the body.
struct Output {
    ty: Type,
    span: Span,
}

impl Output {
    fn of(output: &Type) -> Self {
        struct Infer;

        impl VisitMut for Infer {
            fn visit_type_mut(&mut self, ty: &mut Type) {
                if let Type::ImplTrait(opaque) = ty {
                    let span = opaque.impl_token.span;
                    *ty = Type::Verbatim(quote_spanned!(span=> _));
                } else {
                    visit_mut::visit_type_mut(self, ty);
                }
            }
        }

        let mut ty = output.clone();
        Infer.visit_type_mut(&mut ty);
        Self {
            ty,
            span: output.span(),
        }
    }

    /// Whether all of it is `impl Trait`: nothing is known of it then.
    fn is_inferred(&self) -> bool {
        self.ty.to_token_stream().to_string() == "_"
    }
}

/// Expressions of the attribute, as they are called where they are put.
struct Attribute {
    renamed_self: Option<&'static str>,
}

impl Attribute {
    fn tokens(&self, expr: &Expr) -> TokenStream {
        match self.renamed_self {
            Some(name) => rename_self(expr, name),
            None => expr.to_token_stream(),
        }
    }
}

/// The path of what only expansions use.
struct Private<'a>(&'a Path);

impl ToTokens for Private<'_> {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let krate = self.0;
        tokens.extend(quote!(#krate::__private));
    }
}
