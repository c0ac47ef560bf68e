//! Until the first job comes, the device paints pictures for nobody. So the first jobs find done what is done once: kernels chosen,
//! graphs recorded, memory taken, times measured.

use std::{collections::VecDeque, sync::Arc};

use serde_json::json;

use super::{
    super::{
        batcher::StepLimits,
        guard::{self, Lost},
        ports::{CanvasState, Engine, EngineError, Line, ModelReport, PaintOrder},
        step_times::Kind,
    },
    Device,
    told::{Call, Piece},
};
use crate::domain::{ModelInfo, ModelState, Submission};

/// Pictures that share a step: with guidance they bring twice as many rows, above which a GPU is busy without graphs.
const PICTURES: [u32; 4] = [1, 2, 4, 8];

/// What is still to be painted for nobody.
pub(super) struct WarmUp<C> {
    left: VecDeque<Rehearsal>,
    /// Of the first that is left, once they have begun.
    canvases: Vec<C>,
}

/// Pictures that are painted together.
struct Rehearsal {
    order: PaintOrder,
    pictures: u32,
}

impl<C> Default for WarmUp<C> {
    fn default() -> Self {
        Self { left: VecDeque::new(), canvases: Vec::new() }
    }
}

impl<C> WarmUp<C> {
    /// Of these models, each in its own size and with the defaults of a request, in as many rows as a step may have.
    pub(super) fn of<'a>(
        (models, steps): (impl Iterator<Item = &'a ModelInfo>, u32),
        (limits, max_canvases): (StepLimits, usize),
    ) -> Self {
        let of_model = |info| {
            let order = order_of(info, steps)?;
            let most = limits.pictures_of(&order.request).min(max_canvases);
            let numbers = PICTURES.into_iter().filter(move |&pictures| pictures as usize <= most);
            Some(numbers.map(move |pictures| Rehearsal { order: order.clone(), pictures }))
        };
        Self { left: models.filter_map(of_model).flatten().collect(), canvases: Vec::new() }
    }
}

/// An order of a request that says nothing; none of a model that cannot paint without a picture.
fn order_of(info: &ModelInfo, steps: u32) -> Option<PaintOrder> {
    let mut body = json!({"model": info.name, "num_inference_steps": steps, "seed": 0});
    if info.takes("prompt") {
        body["prompt"] = "".into();
    }
    let submission = Submission::parse(body, std::slice::from_ref(info), 0).ok()?;
    PaintOrder::of(submission).ok()
}

impl<E: Engine> Device<E> {
    /// What there is to warm up of the models that are here at the start.
    pub(super) fn plan_warm_up(&mut self) {
        let (settings, slow) = (&self.shared.settings, self.engine.slow_first_calls());
        if settings.warm_up.unwrap_or(slow > 1) {
            let reports = self.engine.models();
            let is_here = |report: &ModelReport| report.status.state == ModelState::Loaded;
            let here = |info: &&ModelInfo| reports.iter().any(|report| report.model == info.name && is_here(report));
            // Behind the slow ones comes one like all that follow.
            let models = (self.shared.models.iter().filter(here), slow + 1);
            self.warm_up = WarmUp::of(models, (settings.step, settings.max_canvases));
        }
    }

    /// Does one piece of what is left, such as a UNet call: a job that comes waits for no more. `false` when nothing is left, or a job has come:
    /// it may need the room.
    pub(super) fn warm_up(&mut self) -> Result<bool, Lost> {
        let Some(Rehearsal { order, .. }) = self.warm_up.left.front() else { return Ok(false) };
        if self.channels.orders.is_closed() || self.shared.outlook.has_waiting() {
            self.warm_up = WarmUp::default();
            return Ok(false);
        }
        let request = order.request.clone();
        if let Err(error) = guard::blame(|| self.rehearse())? {
            tracing::warn!(model = request.model, %error, "a model is not warmed up any further; its jobs paint all the same");
            self.warm_up.canvases.clear();
            self.warm_up.left.retain(|rehearsal| rehearsal.order.request.model != request.model);
        }
        Ok(true)
    }

    fn rehearse(&mut self) -> Result<(), EngineError> {
        let Self { warm_up: WarmUp { left, canvases }, engine, .. } = self;
        let Some(Rehearsal { order, pictures }) = left.front() else { return Ok(()) };
        match canvases.first() {
            None => *canvases = engine.begin(order, 0..*pictures)?.canvases,
            Some(canvas) if !canvas.is_done() => self.rehearse_step()?,
            Some(canvas) => {
                drop(engine.finish(&[canvas])?);
                canvases.clear();
                left.pop_front();
            }
        }
        // Nobody has asked for these prompts.
        self.engine.take_prompt_lookups();
        Ok(())
    }

    fn rehearse_step(&mut self) -> Result<(), EngineError> {
        let from = self.engine.mark(Line::Steps);
        let WarmUp { left, canvases } = &mut self.warm_up;
        let (Some(canvas), Some(Rehearsal { order, .. })) = (canvases.first(), left.front()) else { return Ok(()) };
        let (rows, pixels) = (canvases.iter().map(CanvasState::rows).sum(), canvas.pixels());
        let model: Arc<str> = order.request.model.as_str().into();
        self.engine.step(&mut canvases.iter_mut().collect::<Vec<_>>())?.into_iter().collect::<Result<(), _>>()?;
        let kind = Kind { model, pixels, cache_interval: 1, fp8_linears: false };
        self.tell(Piece::Call(Call { kind, is_shallow: false, rows, is_whole: true, is_rehearsal: true }), from);
        Ok(())
    }
}
