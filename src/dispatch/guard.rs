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

/// What a step came to.
#[derive(Debug)]
pub(super) struct Stepped {
    /// For each canvas.
    pub(super) results: Vec<Result<(), Fault>>,
    /// Whether all of them moved in the first call.
    pub(super) is_whole: bool,
}

/// Moves every canvas by one step, together if that works, else in halves; answers for each canvas.
pub(super) fn step<E: Engine>(engine: &mut E, canvases: &mut [&mut E::Canvas], metrics: &Metrics) -> Result<Stepped, Lost> {
    let mut calls = 0;
    let answer = with_room(engine, &[], |engine| {
        calls += 1;
        engine.step(canvases)
    });
    let error = match answer? {
        Ok(results) if results.len() == canvases.len() => {
            metrics.step_canvases.observe(canvases.len() as f64);
            let results = results.into_iter().map(own_fault).collect::<Result<_, _>>()?;
            return Ok(Stepped { results, is_whole: calls == 1 });
        }
        Ok(results) => EngineError::Failed(format!("{} answers for {} canvases", results.len(), canvases.len())),
        Err(error) => error,
    };
    if canvases.len() < 2 {
        return Ok(Stepped { results: vec![Err(error); canvases.len()], is_whole: false });
    }
    tracing::warn!(step.canvases = canvases.len(), %error, "a step failed; trying it again in halves");
    let (left, right) = canvases.split_at_mut(canvases.len() / 2);
    let mut results = step(engine, left, metrics)?.results;
    results.extend(step(engine, right, metrics)?.results);
    Ok(Stepped { results, is_whole: false })
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

#[cfg(test)]
mod tests {
    use std::{ops::Range, time::Instant};

    use image::RgbImage;

    use super::{
        super::ports::{BatchKey, Begun, CanvasState, IntoRgb, Line, ModelEvent, ModelReport, PaintOrder, Prepared},
        *,
    };
    use crate::domain::GenerationRequest;

    type Answer<T> = Result<T, EngineError>;

    /// Cannot move more than so many canvases at a time.
    struct Weak(usize);
    struct Moves(u32);
    struct NoFrame;

    impl CanvasState for Moves {
        fn batch_key(&self) -> BatchKey {
            BatchKey::new("")
        }

        fn rows(&self) -> usize {
            1
        }

        fn pixels(&self) -> usize {
            1
        }

        fn progress(&self) -> (u32, u32) {
            (self.0, 9)
        }

        fn calls_left(&self) -> u32 {
            9 - self.0
        }
    }

    impl IntoRgb for NoFrame {
        fn into_rgb(self) -> Answer<RgbImage> {
            unreachable!()
        }
    }

    impl Engine for Weak {
        type Canvas = Moves;
        type Frame = NoFrame;
        type Model = ();
        type Mark = Instant;

        fn prepare(&mut self, _: &GenerationRequest) -> Answer<Prepared<()>> {
            unreachable!()
        }

        fn install(&mut self, _: &str, _: Answer<()>) -> Answer<()> {
            unreachable!()
        }

        fn models(&self) -> Vec<ModelReport> {
            Vec::new()
        }

        fn model_memory(&self) -> Option<u64> {
            None
        }

        fn evict_idle(&mut self, _: &[&str]) -> bool {
            false
        }

        fn take_model_events(&mut self) -> Vec<ModelEvent> {
            Vec::new()
        }

        fn begin(&mut self, _: &PaintOrder, _: Range<u32>) -> Answer<Begun<Moves>> {
            unreachable!()
        }

        fn step(&mut self, canvases: &mut [&mut Moves]) -> Answer<Vec<Answer<()>>> {
            if canvases.len() > self.0 {
                return Err(EngineError::OutOfMemory("too many".to_owned()));
            }
            canvases.iter_mut().for_each(|canvas| canvas.0 += 1);
            Ok(vec![Ok(()); canvases.len()])
        }

        fn preview(&mut self, _: &Moves) -> Answer<Option<NoFrame>> {
            unreachable!()
        }

        fn finish(&mut self, _: &[&Moves]) -> Answer<Vec<NoFrame>> {
            unreachable!()
        }

        fn mark(&mut self, _: Line) -> Instant {
            unreachable!()
        }
    }

    #[test]
    fn a_step_that_had_to_be_divided_says_so_though_everybody_moved() {
        for (most, is_whole, moved) in [(4, true, 1), (3, false, 1), (1, false, 1), (0, false, 0)] {
            let mut canvases = [0; 4].map(Moves);
            let mut together: Vec<&mut Moves> = canvases.iter_mut().collect();
            let stepped = step(&mut Weak(most), &mut together, &Metrics::new().unwrap()).unwrap();
            assert_eq!((stepped.is_whole, stepped.results.iter().all(Result::is_ok)), (is_whole, moved == 1), "at most {most}");
            assert!(canvases.iter().all(|canvas| canvas.0 == moved));
        }
    }
}
