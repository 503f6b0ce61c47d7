//! The programs of `examples/`, started as their users start them.

mod bulk;
mod orders_cache;
mod orders_exclusion;
mod orders_faults;
mod orders_health;
mod orders_leader;
mod orders_life;
mod orders_metrics;
mod orders_postgres;
mod orders_refunds;
mod orders_store;
mod outbox;
