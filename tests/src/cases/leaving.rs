//! Callers that leave.

use crate::{Bed, Store, Storm, seed};

/// Under load, at any time, in every way.
pub async fn acquires_that_are_dropped_at_random_times_leak_nothing<S: Store>(bed: Bed<S>) {
    let clients = vec![bed.client().await, bed.client().await];
    let names = (0..4).map(|_| bed.name()).collect();
    Storm::new(clients, names).blow(seed(), 16, 60).await;
}
