//! Calls the engine so that nothing it does can take another job along: panics are caught, and a batch that fails is split until
//! the canvas at fault stands alone.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures::FutureExt;

use super::{
    ports::{Engine, EngineError},
    shared::Shared,
};
use crate::telemetry::{Metrics, panic_message};

/// The device can do nothing any more. Nobody is to blame.
#[derive(Debug)]
pub(super) struct Lost(pub(super) EngineError);

/// A canvas's own error.
type Fault = EngineError;

/// Runs the engine's code; a panic becomes an error.
///
/// Unwind safety: the engine assigns to a canvas only at the end of a step, when nothing can panic any more. So a canvas whose step
/// has panicked has not moved, and may be stepped again. Of itself the engine keeps from call to call only which models are where, each
/// change of which is an assignment.
pub(super) fn catch<T>(code: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or_else(|payload| Err(EngineError::Panicked(panic_message(payload.as_ref()))))
}

/// Runs one of the tasks around the device. Without it nothing would be painted or stored any more, so its panic, a bug of ours, ends
/// the process as a lost device does.
///
/// Unwind safety: after a panic only the locks of the shared state are used, which its sections leave whole.
pub(super) async fn supervise(shared: Arc<Shared>, task: &'static str, work: impl Future<Output = ()>) {
    if let Err(payload) = AssertUnwindSafe(work).catch_unwind().await {
        shared.lose_device(EngineError::DeviceLost(format!("the {task} panicked: {}", panic_message(payload.as_ref()))));
    }
}

/// Like [`catch`], and sets a lost device apart from the errors that one job can be blamed for.
pub(super) fn blame<T>(code: impl FnOnce() -> Result<T, EngineError>) -> Result<Result<T, Fault>, Lost> {
    match catch(code) {
        Err(lost @ EngineError::DeviceLost(_)) => Err(Lost(lost)),
        other => Ok(other),
    }
}

/// Like [`blame`], for work that takes memory: while there is too little, models leave that nobody uses and that are not in `stay`, before
/// anybody is blamed.
pub(super) fn with_room<E: Engine, T>(
    engine: &mut E,
    stay: &[&str],
    mut work: impl FnMut(&mut E) -> Result<T, EngineError>,
) -> Result<Result<T, Fault>, Lost> {
    loop {
        let done = blame(|| work(engine))?;
        if !matches!(done, Err(EngineError::OutOfMemory(_))) || !engine.evict_idle(stay) {
            return Ok(done);
        }
    }
}

/// Moves every canvas by one step, together if that works, else in halves; answers for each canvas.
pub(super) fn step<E: Engine>(
    engine: &mut E,
    canvases: &mut [&mut E::Canvas],
    metrics: &Metrics,
) -> Result<Vec<Result<(), Fault>>, Lost> {
    let error = match with_room(engine, &[], |engine| engine.step(canvases))? {
        Ok(results) if results.len() == canvases.len() => {
            metrics.step_canvases.observe(canvases.len() as f64);
            return results.into_iter().map(own_fault).collect();
        }
        Ok(results) => EngineError::Failed(format!("{} answers for {} canvases", results.len(), canvases.len())),
        Err(error) => error,
    };
    if canvases.len() < 2 {
        return Ok(vec![Err(error); canvases.len()]);
    }
    tracing::warn!(step.canvases = canvases.len(), %error, "a step failed; trying it again in halves");
    let (left, right) = canvases.split_at_mut(canvases.len() / 2);
    let mut results = step(engine, left, metrics)?;
    results.extend(step(engine, right, metrics)?);
    Ok(results)
}

fn own_fault(result: Result<(), EngineError>) -> Result<Result<(), Fault>, Lost> {
    blame(|| result)
}

/// Decodes a finished canvas.
pub(super) fn finish<E: Engine>(engine: &mut E, canvas: &E::Canvas) -> Result<Result<E::Frame, Fault>, Lost> {
    let decoded = with_room(engine, &[], |engine| engine.finish(&[canvas]))?;
    Ok(decoded.and_then(|frames| {
        let count = frames.len();
        let one = <[E::Frame; 1]>::try_from(frames).map(|[frame]| frame);
        one.map_err(|_| EngineError::Failed(format!("{count} frames for one canvas")))
    }))
}
