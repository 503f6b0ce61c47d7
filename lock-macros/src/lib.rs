//! Locks by attribute: an `async fn` that runs in one place at a time.
//!
//! Use it through `lock_core`, which re-exports both macros and holds what they expand to.
//!
//! ```
//! use lock_core::{LockError, LockProvider, distributed_lock};
//! # struct Receipt;
//! # async fn charge(_: u64) -> Result<Receipt, LockError> { Ok(Receipt) }
//!
//! /// No order is charged twice at the same time, by whichever instance.
//! #[distributed_lock("order:charge:<id>", wait = "5s")]
//! async fn process(locks: &LockProvider, id: u64) -> Result<Receipt, LockError> {
//!     charge(id).await
//! }
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! # let locks = LockProvider::new(lock_core::memory::MemoryBackend::new());
//! # assert!(process(&locks, 1).await.is_ok());
//! # }
//! ```
//!
//! - [`#[distributed_lock(..)]`](macro@distributed_lock) takes the lock, runs the body as long as the
//!   lock is ours, and releases it.
//! - [`lock_name!(..)`](macro@lock_name) makes a name from the same templates, for guards taken by hand.
//!
//! Templates and options are checked when the program compiles; values are escaped when it runs. A
//! mistake is shown where it was written, with what to do about it, and the function is still there
//! for its callers.

mod args;
mod boxed;
mod errors;
mod expand;
mod function;
mod lock_name;
mod params;
mod renamed;
mod suggest;
mod template;
mod validate;

use proc_macro::TokenStream;
use proc_macro2::TokenStream as TokenStream2;
use quote::quote;

use crate::args::Args;
use crate::errors::Errors;
use crate::function::Function;
use crate::lock_name::LockName;
use crate::validate::Plan;

/// Runs an `async fn` under a distributed lock.
///
/// ```
/// # use lock_core::{LockError, LockProvider, distributed_lock, memory::MemoryBackend};
/// # struct Order { id: u64 }
/// # struct Orders { locks: LockProvider }
/// impl Orders {
///     #[distributed_lock("order:process:<order.id>", provider = self.locks, wait = "10s")]
///     async fn process(&self, order: Order) -> Result<u64, LockError> {
///         Ok(order.id)
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// # let orders = Orders { locks: LockProvider::new(MemoryBackend::new()) };
/// # assert_eq!(orders.process(Order { id: 3 }).await?, 3);
/// # Ok(()) }
/// ```
///
/// # The name
///
/// `entity:operation:id` or `job:name`. What stands in `<..>` is filled in at each call: a parameter
/// (also one that a pattern binds: `Path(id): Path<u64>` gives `<id>`), a field of it (`<cmd.order_id>`,
/// `<pair.0>`, `<self.id>`), or a method of it without arguments (`<user.id()>`); anything that
/// implements `Display`. Values are escaped, so that different values never give one name, and shortened
/// when they are long. Metrics and logs show the template, never the filled name.
///
/// `<email:hashed>` puts a hash there instead of the value, keyed by `LOCK_NAME_SECRET` if that is set:
/// for what must not be read in a lock table.
///
/// Several templates are several locks: all of them, always taken in the same order, or none.
///
/// ```
/// # use lock_core::{LockError, LockProvider, distributed_lock, memory::MemoryBackend};
/// # struct Login { email: String }
/// #[distributed_lock("account:transfer:<from>", "account:transfer:<to>")]
/// async fn transfer(locks: &LockProvider, from: u64, to: u64) -> Result<(), LockError> {
///     // .. no other call moves money of either ..
/// #   let _ = (locks, from, to);
///     Ok(())
/// }
///
/// #[distributed_lock("user:login:<login.email:hashed>")]
/// async fn log_in(locks: &LockProvider, login: Login) -> Result<(), LockError> {
/// #   let _ = (locks, login);
///     Ok(())
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// # let locks = LockProvider::new(MemoryBackend::new());
/// # transfer(&locks, 1, 2).await?;
/// # log_in(&locks, Login { email: "ann@example.org".into() }).await
/// # }
/// ```
///
/// # Options
///
/// | option | what it says | if it is left out |
/// | --- | --- | --- |
/// | `provider = EXPR` | where locks come from; evaluated once, derefs to a `LockProvider` | the parameter called `locks`, else the installed provider; a field is not looked for: write `provider = self.locks` |
/// | `policy = POLICY` | `background_job`, `user_request`, `long_operation`, or an expression | `user_request`; `background_job` with `skip` |
/// | `wait = "5s"` | how long to wait for the lock; text, or a `Duration` | as the policy says |
/// | `max_hold = "1m"` | how long to hold it before it is given up as lost | as long as the body takes |
/// | `at_least = "50s"` | how long to keep it from when it was acquired, also after the body | no longer than the body takes |
/// | `permits = 5` | so many may hold the lock at a time, in all processes together: 1 to 256, or a `usize` | one |
/// | `shared` | this is a reader: any number of them hold the lock together, and none while a function without `shared` does | the lock is held alone |
/// | `busy = EXPR` | what to return when another has the lock | as every refusal |
/// | `refused = \|error\| EXPR` | what to return whenever the body did not run to its end | the error, by `From<LockError>` |
/// | `skip` | that another has the lock is no error: the call does nothing | |
/// | `guard = IDENT` | the name under which the body sees its `&LockGuard` (several locks: `&LockGuards`) | |
/// | `crate = PATH` | where `lock_core` is, if another crate re-exports it | `::lock_core`, or what the manifest calls it |
///
/// # When there is no lock
///
/// The body never runs without its lock. The function returns instead:
///
/// - as a rule, `Err(error.into())`: its error type has a `From<LockError>`;
/// - with `busy = EXPR`, this when another has the lock:
///
///   ```
///   # use lock_core::{LockError, LockProvider, distributed_lock, memory::MemoryBackend};
///   # #[derive(Debug)]
///   enum OrderError {
///       AlreadyBeingProcessed(u64),
///       Lock(LockError),
///   }
///   # impl From<LockError> for OrderError { fn from(error: LockError) -> Self { Self::Lock(error) } }
///
///   #[distributed_lock(
///       "order:process:<id>",
///       wait = "0s",
///       busy = Err(OrderError::AlreadyBeingProcessed(id))
///   )]
///   async fn process(locks: &LockProvider, id: u64) -> Result<(), OrderError> {
///   #   let _ = (locks, id);
///       Ok(())
///   }
///   # #[tokio::main(flavor = "current_thread")] async fn main() {
///   # let locks = LockProvider::new(MemoryBackend::new());
///   # assert!(process(&locks, 3).await.is_ok());
///   # let _guard = locks.lock("order:process:3").unwrap().acquire(std::time::Duration::ZERO).await;
///   # assert!(matches!(process(&locks, 3).await, Err(OrderError::AlreadyBeingProcessed(3))));
///   # }
///   ```
///
/// - with `refused = |error| ..`, what this makes of the error, for types that no error converts into;
///   it is evaluated once, before the lock is taken:
///
///   ```
///   # use axum::extract::{Path, State};
///   # use axum::http::StatusCode;
///   # use axum::response::IntoResponse;
///   # use lock_core::{LockError, LockProvider, distributed_lock, memory::MemoryBackend};
///   #[distributed_lock("report:build:<id>", refused = refusal)]
///   async fn build(State(locks): State<LockProvider>, Path(id): Path<u64>) -> impl IntoResponse {
///       (StatusCode::OK, format!("report {id}"))
///   }
///
///   fn refusal(error: LockError) -> (StatusCode, String) {
///       let contended = error.is_contended();
///       let status = if contended { StatusCode::CONFLICT } else { StatusCode::SERVICE_UNAVAILABLE };
///       (status, error.to_string())
///   }
///   # #[tokio::main(flavor = "current_thread")] async fn main() {
///   # let locks = LockProvider::new(MemoryBackend::new());
///   # assert_eq!(build(State(locks), Path(1)).await.into_response().status(), StatusCode::OK);
///   # }
///   ```
///
///   What the closure mentions stays borrowed until the release: the body can read it too, and cannot
///   move it; clone what both need whole.
///
/// - with `skip`, for jobs that every instance starts, and that one of them runs at a time (one that starts
///   it later, when the first has ended, runs it again): `()`, `None`, `Ok(())` or `Ok(None)`. Other
///   errors are returned if the type is a `Result`; else they are logged.
///
///   ```
///   # use lock_core::{LockProvider, distributed_lock, memory::MemoryBackend};
///   #[distributed_lock("job:cleanup-tokens", skip)]
///   async fn clean_up(locks: &LockProvider) {
///       // .. once at a time, in all instances together ..
///   #   let _ = locks;
///   }
///   # #[tokio::main(flavor = "current_thread")] async fn main() {
///   # clean_up(&LockProvider::new(MemoryBackend::new())).await;
///   # }
///   ```
///
///   A job that is over sooner than the timers of the instances differ would run once in each. `at_least`
///   keeps its lock: the instances whose timers are late skip it.
///
///   ```
///   # use lock_core::{LockProvider, distributed_lock, memory::MemoryBackend};
///   /// Each minute, by one instance.
///   #[distributed_lock("job:report", skip, at_least = "50s")]
///   async fn report(locks: &LockProvider) -> Option<u32> {
///   #   let _ = locks;
///       Some(12)
///   }
///   # #[tokio::main(flavor = "current_thread")] async fn main() {
///   # let locks = LockProvider::new(MemoryBackend::new());
///   # assert_eq!((report(&locks).await, report(&locks).await), (Some(12), None));
///   # }
///   ```
///
/// # At most so many
///
/// With `permits = 5` five calls run at a time, in all processes together, and the sixth waits for one of them.
/// Each has a slot of its own, which is what `guard.name()` says; see
/// [`DistributedLock::permits`](../lock_core/struct.DistributedLock.html#method.permits).
///
/// ```
/// # use lock_core::{LockError, LockProvider, distributed_lock, memory::MemoryBackend};
/// #[distributed_lock("export:run:<tenant>", permits = 5, wait = "1m")]
/// async fn export(locks: &LockProvider, tenant: &str) -> Result<(), LockError> {
/// #   let _ = (locks, tenant);
///     Ok(())
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// # export(&LockProvider::new(MemoryBackend::new()), "acme").await
/// # }
/// ```
///
/// # Readers
///
/// With `shared` a function holds its lock together with all others that have `shared` and the same name, in all
/// processes, and never beside one that has not, which is called the writer. A writer that waits is not
/// overtaken by readers that come later. A reader has no fencing token; see
/// [`DistributedLock::shared`](../lock_core/struct.DistributedLock.html#method.shared).
///
/// ```
/// # use lock_core::{LockError, LockProvider, distributed_lock, memory::MemoryBackend};
/// #[distributed_lock("catalog:read:<id>", shared)]
/// async fn price(locks: &LockProvider, id: u64) -> Result<u32, LockError> {
/// #   let _ = (locks, id);
///     Ok(12) // of one catalogue: no import is half done
/// }
///
/// #[distributed_lock("catalog:read:<id>")]
/// async fn import(locks: &LockProvider, id: u64) -> Result<(), LockError> {
/// #   let _ = (locks, id);
///     Ok(()) // alone
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// # let locks = LockProvider::new(MemoryBackend::new());
/// # assert_eq!(price(&locks, 1).await?, 12);
/// # import(&locks, 1).await
/// # }
/// ```
///
/// # While the body runs
///
/// It runs under `guard.protect(..)`: when the lock is lost, it is dropped at its next await, and the
/// function returns an error of kind `Lost`. A body that finishes after its lease has ended is lost
/// too: its outcome is unknown. What it has spawned or sent goes on; storage that checks a fencing
/// token can refuse it:
///
/// ```
/// # use lock_core::{FencingToken, LockError, LockProvider, distributed_lock, memory::MemoryBackend};
/// # async fn save(_: u64, _: FencingToken) -> Result<(), LockError> { Ok(()) }
/// #[distributed_lock("order:process:<id>", guard = held)]
/// async fn process(locks: &LockProvider, id: u64) -> Result<(), LockError> {
/// #   let _ = locks;
///     save(id, held.fencing_token().await?).await
/// }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), LockError> {
/// # process(&LockProvider::new(MemoryBackend::new()), 1).await
/// # }
/// ```
///
/// The release is awaited before the function returns its value, or resumes a panic of its body; a
/// release that fails is logged and counted, and changes nothing. Dropping the future drops the body
/// and then releases the lock in the background.
///
/// Three limits. What a returned stream or response body does later is not locked: use the layer. The
/// value that the body returns is held while the lock is released: it has to be `Send` where the future
/// has to. And a lock is not re-entrant: the function calling itself under the same name waits for
/// itself, until its wait is over.
///
/// # With other attributes
///
/// What stands above this attribute is applied first, and then locked with the body; what stands
/// below wraps the lock too. `#[tracing::instrument]` may do either: above, its span begins when the
/// lock is held; below, it covers the wait. So may `#[axum::debug_handler]`, except with `guard =`: it
/// copies the body to check it, without the guard, unless it stands below. In an impl under
/// `#[async_trait]` the attribute goes on the methods. `#[tokio::main]` and `#[tokio::test]` have to stand
/// below, since they leave no `async fn`.
#[proc_macro_attribute]
pub fn distributed_lock(args: TokenStream, item: TokenStream) -> TokenStream {
    attribute(args.into(), item.into()).into()
}

/// Makes a lock name from a template, as `format!` makes text: a `Result<LockName, LockError>`.
///
/// Placeholders are those of [`#[distributed_lock(..)]`](macro@distributed_lock). They capture
/// variables; `name = expression` gives any other value. Expressions are evaluated once, and borrowed.
///
/// ```
/// # use lock_core::{LockError, lock_name};
/// # struct Order { id: u64, lines: Vec<u8> }
/// # let order = Order { id: 42, lines: vec![1, 2] };
/// let tenant = "acme/eu";
/// let name = lock_name!("order:process:<tenant>:<order.id>")?;
/// assert_eq!(name.as_str(), "order:process:acme%2Feu:42");
///
/// let name = lock_name!("order:line:<order.id>:<line>", line = order.lines[1])?;
/// assert_eq!(name.as_str(), "order:line:42:2");
/// # Ok::<(), LockError>(())
/// ```
///
/// The template is checked when it compiles; the error is of a value that cannot be part of a name, such
/// as an empty one. `LockProvider::lock` takes the result as it is:
///
/// ```
/// # use lock_core::{LockError, LockPolicy, LockProvider, lock_name, memory::MemoryBackend};
/// # async fn f() -> Result<(), LockError> {
/// # let (locks, id) = (LockProvider::new(MemoryBackend::new()), 42);
/// let lock = locks.lock(lock_name!("order:process:<id>"))?;
/// # Ok(()) }
/// ```
#[proc_macro]
pub fn lock_name(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as LockName);
    input
        .expand()
        .unwrap_or_else(Errors::into_compile_errors)
        .into()
}

/// Parse, validate, expand. The user's item survives whatever is wrong with the attribute.
fn attribute(args: TokenStream2, item: TokenStream2) -> TokenStream2 {
    let (args, mut errors) = Args::parse(args);
    let function: Function = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            errors.push(error);
            let errors = errors.into_compile_errors();
            return quote!(#errors #item);
        }
    };
    let explained = (args.guard.as_ref())
        .filter(|guard| !function.binds(guard))
        .map(|guard| expand::explained_guard(guard, args.templates.len(), args.krate.as_ref()));
    if let Some(body) = errors.ok(function.body())
        && let Some(plan) = Plan::check(args, &body, &mut errors)
    {
        return function.with_locked(&body, expand::locked(&plan, &body));
    }
    let errors = errors.into_compile_errors();
    let item = function.with_prelude(explained);
    quote!(#errors #item)
}
