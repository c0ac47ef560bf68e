//! Terms of admission for tests that speak to a store directly.

use std::{collections::BTreeMap, time::Duration};

use easel::dispatch::ports::{DeviceView, ModelTurns, Terms};

/// A queue of this capacity and nothing else that is limited.
pub(crate) fn terms(capacity: u64) -> Terms {
    Terms { capacity, owner_capacity: None, ageing: Duration::from_secs(60), idempotency: None }
}

/// A device without work, on which every model is as welcome as any other.
pub(crate) static IDLE: DeviceView =
    DeviceView { is_empty: true, models: ModelTurns { stay: Duration::ZERO, models: BTreeMap::new(), memory: None } };
/// The same with work.
pub(crate) static BUSY: DeviceView =
    DeviceView { is_empty: false, models: ModelTurns { stay: Duration::ZERO, models: BTreeMap::new(), memory: None } };
