//! Seeing through `#[async_trait]`, which traits need that are used as `dyn`. It runs first: it has turned the method into a plain one
//! that returns a boxed `async move` block.
//!
//! ```text
//! fn f(&self, __arg1: Path<u64>) -> Pin<Box<dyn Future<Output = R> + Send + '_>> {
//!     Box::pin(async move {
//!         if let Some(__ret) = None::<R> { return __ret; }
//!         let __self = self;
//!         let Path(id) = { let __arg1 = __arg1; __arg1 };
//!         let __ret: R = { .. };          // `let _: () = { .. };` where R is not written
//!         __ret
//!     })
//! }
//! ```
//!
//! The inner block is the body, and it sees the parameters under their names. Where the block
//! looks otherwise (a newer `async_trait`, a method written by hand), all of it is the body: nothing
//! but the moves above ever runs without the lock.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::parse::Parser;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{
    Block, Expr, ExprAsync, GenericArgument, Ident, Local, Pat, PathArguments, Signature, Stmt,
    TraitBound, Type,
};

use crate::params::{Params, bind_local};

/// A function whose only statement is `Box::pin(async move { .. })`.
pub(crate) struct Boxed {
    statements: Vec<Stmt>,
    params: Params,
}

/// What was found in it.
pub(crate) struct Found {
    pub(crate) statements: TokenStream,
    pub(crate) brace: Span,
    pub(crate) output: Type,
    pub(crate) params: Params,
}

impl Boxed {
    /// Finds the body of such a function.
    pub(crate) fn find(sig: &Signature, body: &TokenStream) -> Option<(Self, Found)> {
        let output = future_output(sig)?;
        let mut boxed = Self {
            statements: Block::parse_within.parse2(body.clone()).ok()?,
            params: Params::of(sig),
        };
        let found = boxed.at_body(|block, params| Found {
            statements: block.stmts.iter().map(ToTokens::to_token_stream).collect(),
            brace: block.brace_token.span.join(),
            output,
            params,
        })?;
        Some((boxed, found))
    }

    /// The function's statements with this for a body.
    pub(crate) fn with(&self, locked: TokenStream) -> TokenStream {
        let mut boxed = Self {
            statements: self.statements.clone(),
            params: self.params.clone(),
        };
        boxed.at_body(|block, _| {
            block.stmts = vec![Stmt::Expr(Expr::Verbatim(locked), None)];
        });
        let statements = &boxed.statements;
        quote!(#(#statements)*)
    }

    /// Does something with the body and the parameters that it sees.
    fn at_body<R>(&mut self, action: impl FnOnce(&mut Block, Params) -> R) -> Option<R> {
        let outer = async_block(&mut self.statements)?;
        let mut at = AtBody {
            params: &self.params,
            traced: false,
            action: Some(action),
            result: None,
        };
        at.visit_block(&mut outer.block);
        if let Some(action) = at.action {
            return Some(action(&mut outer.block, self.params.clone()));
        }
        at.result
    }
}

/// The block of `Box::pin(async move { .. })`, if there is nothing else.
fn async_block(statements: &mut [Stmt]) -> Option<&mut ExprAsync> {
    let [Stmt::Expr(Expr::Call(call), None)] = statements else {
        return None;
    };
    let Expr::Path(function) = &*call.func else {
        return None;
    };
    let mut names = function
        .path
        .segments
        .iter()
        .rev()
        .map(|segment| &segment.ident);
    if names.next()? != "pin" || names.next()? != "Box" || call.args.len() != 1 {
        return None;
    }
    match call.args.first_mut()? {
        Expr::Async(block) => Some(block),
        _ => None,
    }
}

/// The `R` of `Pin<Box<dyn Future<Output = R>>>`.
fn future_output(sig: &Signature) -> Option<Type> {
    #[derive(Default)]
    struct Output(Option<Type>);

    impl Visit<'_> for Output {
        fn visit_trait_bound(&mut self, bound: &TraitBound) {
            let Some(last) = bound
                .path
                .segments
                .last()
                .filter(|last| last.ident == "Future")
            else {
                return;
            };
            if let PathArguments::AngleBracketed(arguments) = &last.arguments {
                for argument in &arguments.args {
                    if let GenericArgument::AssocType(output) = argument
                        && output.ident == "Output"
                    {
                        self.0.get_or_insert_with(|| output.ty.clone());
                    }
                }
            }
        }

        // What is inside of a function pointer or an `impl Trait` is not what this one returns.
        fn visit_type(&mut self, ty: &Type) {
            if matches!(ty, Type::Path(_) | Type::TraitObject(_)) {
                visit::visit_type(self, ty);
            }
        }
    }

    let mut output = Output::default();
    output.visit_return_type(&sig.output);
    output.0
}

/// Finds the block that `__ret` is made of, also where `#[tracing::instrument]` has wrapped it.
struct AtBody<'a, F, R> {
    params: &'a Params,
    traced: bool,
    action: Option<F>,
    result: Option<R>,
}

impl<F: FnOnce(&mut Block, Params) -> R, R> AtBody<'_, F, R> {
    fn visit_block(&mut self, block: &mut Block) {
        if let Some((at, params)) = ret(block, self.params)
            && let Some(body) = init_block(&mut block.stmts[at])
            && let Some(action) = self.action.take()
        {
            self.result = Some(action(body, params));
            return;
        }
        for statement in &mut block.stmts {
            let traced = matches!(statement, Stmt::Local(local)
                if binds(local, "__tracing_instrument_future"));
            if traced || self.traced {
                self.traced = true;
                self.visit_stmt_mut(statement);
            }
        }
    }
}

impl<F: FnOnce(&mut Block, Params) -> R, R> VisitMut for AtBody<'_, F, R> {
    fn visit_expr_async_mut(&mut self, block: &mut ExprAsync) {
        if self.action.is_some() {
            self.visit_block(&mut block.block);
        }
    }

    fn visit_expr_mut(&mut self, expr: &mut Expr) {
        if self.action.is_some() {
            visit_mut::visit_expr_mut(self, expr);
        }
    }
}

/// The position of the `__ret` that is made of the body, if nothing but moves is before it, and the
/// parameters after those.
fn ret(block: &Block, params: &Params) -> Option<(usize, Params)> {
    let at = block.stmts.iter().position(|statement| match statement {
        Stmt::Local(local) => binds(local, "__ret") || is_unit(local),
        _ => false,
    })?;
    let mut params = params.clone();
    for statement in &block.stmts[..at] {
        if is_typed_return(statement) {
            continue;
        }
        let moved = moved(statement)?;
        params.remove(&moved.to_string());
        bind_local(&mut params, statement);
    }
    let rest = &block.stmts[at + 1..];
    let last = rest.is_empty() || matches!(rest, [Stmt::Expr(Expr::Path(_), None)]);
    last.then_some((at, params))
}

fn binds(local: &Local, name: &str) -> bool {
    match &local.pat {
        Pat::Ident(pat) => pat.ident == name,
        Pat::Type(typed) => matches!(&*typed.pat, Pat::Ident(pat) if pat.ident == name),
        _ => false,
    }
}

/// `let _: () = ..`
fn is_unit(local: &Local) -> bool {
    let Pat::Type(typed) = &local.pat else {
        return false;
    };
    let unit = matches!(&*typed.ty, Type::Tuple(tuple) if tuple.elems.is_empty());
    unit && matches!(&*typed.pat, Pat::Wild(_))
}

fn init_block(statement: &mut Stmt) -> Option<&mut Block> {
    let Stmt::Local(local) = statement else {
        return None;
    };
    match &mut *local.init.as_mut()?.expr {
        Expr::Block(block) if block.label.is_none() => Some(&mut block.block),
        _ => None,
    }
}

/// `if let Some(__ret) = None::<R> { .. }`
fn is_typed_return(statement: &Stmt) -> bool {
    let Stmt::Expr(Expr::If(check), None) = statement else {
        return false;
    };
    let Expr::Let(condition) = &*check.cond else {
        return false;
    };
    let Pat::TupleStruct(some) = &*condition.pat else {
        return false;
    };
    matches!(some.elems.first(), Some(Pat::Ident(pat)) if pat.ident == "__ret")
}

/// What `let PATTERN = name;` moves, or `let PATTERN = { let name = name; name };`.
fn moved(statement: &Stmt) -> Option<&Ident> {
    let Stmt::Local(local) = statement else {
        return None;
    };
    let init = local.init.as_ref().filter(|init| init.diverge.is_none())?;
    match &*init.expr {
        Expr::Path(path) => path.path.get_ident(),
        Expr::Block(block) => match &*block.block.stmts {
            [inner, Stmt::Expr(Expr::Path(path), None)] => {
                moved(inner).filter(|moved| path.path.is_ident(*moved))
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(function: &str) -> Option<(String, Vec<String>)> {
        let function: syn::ItemFn = syn::parse_str(function).expect("a function");
        let statements = function
            .block
            .stmts
            .iter()
            .map(ToTokens::to_token_stream)
            .collect();
        let (boxed, found) = Boxed::find(&function.sig, &statements)?;
        let whole = boxed.with(quote!(LOCKED)).to_string();
        assert_eq!(whole.matches("LOCKED").count(), 1, "{whole}");
        assert_eq!(found.output.to_token_stream().to_string(), "u8");
        Some((found.statements.to_string(), found.params.names()))
    }

    fn boxed(statements: &str) -> String {
        format!(
            "fn f(&self, id: u64, __arg2: (u8, u8))
                -> ::core::pin::Pin<Box<dyn ::core::future::Future<Output = u8> + Send + 'a>> {{
                {statements}
            }}"
        )
    }

    const MOVES: &str = "
        if let ::core::option::Option::Some(__ret) = ::core::option::Option::None::<u8> {
            return __ret;
        }
        let __self = self;
        let mut id = id;
        let (a, b) = { let __arg2 = __arg2; __arg2 };";

    #[test]
    fn the_body_is_what_ret_is_made_of() {
        let names = ["self", "id", "a", "b"].map(str::to_owned);
        let body = format!("{MOVES} let __ret: u8 = {{ work(a) }}; __ret");
        let found = find(&boxed(&format!("Box::pin(async move {{ {body} }})")));
        assert_eq!(found, Some(("work (a)".to_owned(), names.to_vec())));

        let traced = format!(
            "Box::pin(async move {{
                let __tracing_attr_span = span!();
                let __tracing_instrument_future = async move {{
                    match async move {{ {body} }}.await {{ Ok(x) => x, Err(e) => e }}
                }};
                instrument(__tracing_instrument_future, __tracing_attr_span).await
            }})"
        );
        let found = find(&boxed(&traced));
        assert_eq!(found, Some(("work (a)".to_owned(), names.to_vec())));
    }

    #[test]
    fn all_of_an_unknown_block_is_the_body() {
        for before in [
            "start();",
            "let x = start();",
            "if let x = None { start() }",
        ] {
            let body = format!("{before} let _: () = {{ work(); }};");
            let (found, names) =
                find(&boxed(&format!("Box::pin(async move {{ {body} }})"))).expect("a block");
            assert!(found.starts_with(&before[..2]), "{found}");
            assert_eq!(names, ["self", "id"]);
        }
        let nested = "Box::pin(async move { async move { let __ret: u8 = { 1 }; __ret }.await })";
        assert!(
            find(&boxed(nested))
                .expect("a block")
                .0
                .starts_with("async move")
        );
    }

    #[test]
    fn what_runs_before_the_block_could_not_be_locked() {
        assert_eq!(find(&boxed("start(); Box::pin(async move { 1 })")), None);
        assert_eq!(find(&boxed("make(async move { 1 })")), None);
        assert_eq!(
            find("fn f() -> impl Future<Output = u8> { Box::pin(async move { 1 }) }"),
            None
        );
    }
}
