//! Terms of admission for tests that speak to a store directly.

use std::time::Duration;

use easel::dispatch::ports::Terms;

/// A queue of this capacity and nothing else that is limited.
pub(crate) fn terms(capacity: u64) -> Terms {
    Terms { capacity, owner_capacity: None, ageing: Duration::from_secs(60), idempotency: None }
}
