//! One step of many canvases in one UNet call.

use tch::{Kind, Tensor};

use super::{
    canvas::Canvas,
    guidance::GuidanceRows,
    layers::{Result, per_row},
    schedulers::{HISTORY, Limit, Step},
    unet::UNet,
};
use crate::dispatch::ports::{CanvasState, EngineError};

/// Moves every canvas one step forward; answers for each of them. On an outer error no canvas has moved: they are only written to when
/// everything has been computed.
///
/// Whatever the company, each canvas goes through the same operations: terms that a scheduler does not use are there with coefficient 0.
pub(super) fn step(unet: &UNet, kind: Kind, canvases: &mut [&mut Canvas]) -> Result<Vec<std::result::Result<(), EngineError>>> {
    let steps: Vec<Step> = canvases.iter().filter_map(|canvas| canvas.next_step().copied()).collect();
    if steps.len() != canvases.len() {
        return Err(tch::TchError::Shape("a canvas without steps left was stepped".to_owned()));
    }
    let latents: Vec<&Tensor> = canvases.iter().map(|canvas| &canvas.latents).collect();
    let sample = Tensor::f_cat(&latents, 0)?; // [B, C, h, w]
    let model_output = predict(unet, kind, canvases, (&sample, &steps))?;
    let mixer = Mixer { sample: &sample, model_output: &model_output, steps: &steps };
    let pred_original_sample = limit(&mixer.pred_original_sample()?, canvases)?;
    let prev_sample = mixer.prev_sample(&pred_original_sample, canvases)?;
    let finite = finite_rows(&prev_sample)?;
    let rows = (0..)
        .zip(canvases.iter())
        .map(|(row, canvas)| Ok((canvas.put_back(prev_sample.f_narrow(0, row, 1)?)?, pred_original_sample.f_narrow(0, row, 1)?)));
    let rows: Vec<(Tensor, Tensor)> = rows.collect::<Result<_>>()?;
    let settle = |((canvas, (prev, pred)), finite): ((&mut &mut Canvas, (Tensor, Tensor)), bool)| {
        canvas.advance(prev, pred);
        if finite { Ok(()) } else { Err(EngineError::NotFinite { step: canvas.progress().0 }) }
    };
    Ok(canvases.iter_mut().zip(rows).zip(finite).map(settle).collect())
}

/// The guided model output of every canvas, `[B, C, h, w]` float32, in one UNet call.
fn predict(unet: &UNet, kind: Kind, canvases: &[&mut Canvas], (sample, steps): (&Tensor, &[Step])) -> Result<Tensor> {
    let rows = GuidanceRows::of(canvases.iter().map(|canvas| canvas.conditioning()).collect());
    let of_steps = |value: fn(&Step) -> f64| steps.iter().map(value).collect::<Vec<f64>>();
    let scaled = sample.f_mul(&per_row(&of_steps(|step| step.input_scale), sample.device())?)?;
    let timesteps = Tensor::f_from_slice(&rows.expand(&of_steps(|step| step.timestep)))?;
    let timesteps = timesteps.f_to_kind(Kind::Float)?.f_to_device(sample.device())?; // [rows]
    let model_input = rows.model_input(&scaled)?.f_to_kind(kind)?; // [rows, C + C', h, w]
    let model_output = unet.forward(&model_input, &timesteps, rows.condition()?.as_ref())?;
    rows.combine(&model_output.f_to_kind(Kind::Float)?)
}

/// The scheduler's combinations, all canvases at once.
struct Mixer<'a> {
    sample: &'a Tensor,
    model_output: &'a Tensor,
    steps: &'a [Step],
}

impl Mixer<'_> {
    /// `tensor` with each row multiplied by its step's coefficient.
    fn weigh(&self, tensor: &Tensor, coefficient: impl Fn(&Step) -> f64) -> Result<Tensor> {
        let coefficients: Vec<f64> = self.steps.iter().map(coefficient).collect();
        tensor.f_mul(&per_row(&coefficients, tensor.device())?)
    }

    fn pred_original_sample(&self) -> Result<Tensor> {
        let sample = self.weigh(self.sample, |step| step.predict.sample)?;
        sample.f_add(&self.weigh(self.model_output, |step| step.predict.model_output)?)
    }

    fn prev_sample(&self, pred_original_sample: &Tensor, canvases: &[&mut Canvas]) -> Result<Tensor> {
        let mut sum = self.weigh(self.sample, |step| step.combine.sample)?;
        sum = sum.f_add(&self.weigh(self.model_output, |step| step.combine.model_output)?)?;
        sum = sum.f_add(&self.weigh(pred_original_sample, |step| step.combine.pred_original_sample)?)?;
        for back in 0..HISTORY {
            // A canvas that has no history yet has coefficient 0 there: its own latents stand in.
            let past = canvases.iter().map(|canvas| canvas.history.get(back).unwrap_or(&canvas.latents));
            let past = Tensor::f_cat(&past.collect::<Vec<_>>(), 0)?;
            sum = sum.f_add(&self.weigh(&past, |step| step.combine.history[back])?)?;
        }
        Ok(sum)
    }
}

/// Limits the predictions of the canvases whose scheduler asks for it.
fn limit(predictions: &Tensor, canvases: &[&mut Canvas]) -> Result<Tensor> {
    if canvases.iter().all(|canvas| canvas.plan.limit == Limit::None) {
        return Ok(predictions.shallow_clone());
    }
    let limited = (0..).zip(canvases).map(|(row, canvas)| limit_one(&predictions.f_narrow(0, row, 1)?, canvas.plan.limit));
    Tensor::f_cat(&limited.collect::<Result<Vec<_>>>()?, 0)
}

/// diffusers' `clip_sample` and `_threshold_sample` on `[1, C, h, w]`.
fn limit_one(prediction: &Tensor, limit: Limit) -> Result<Tensor> {
    match limit {
        Limit::None => Ok(prediction.shallow_clone()),
        Limit::Clip { range } => prediction.f_clamp(-range, range),
        Limit::Threshold { ratio, max } => {
            let threshold = prediction.f_abs()?.f_quantile_scalar(ratio, None, false, "linear")?.f_clamp(1.0, max)?;
            prediction.f_clamp_tensor(Some(&threshold.f_neg()?), Some(&threshold))?.f_div(&threshold)
        }
    }
}

/// Whether each row of `[B, C, h, w]` holds numbers only.
fn finite_rows(latents: &Tensor) -> Result<Vec<bool>> {
    let finite = latents.f_isfinite()?.f_flatten(1, -1)?.f_all_dim(1, false)?.f_to_kind(Kind::Uint8)?; // [B]
    let mut rows = vec![0_u8; finite.size()[0] as usize];
    let count = rows.len();
    finite.f_to_device(tch::Device::Cpu)?.f_copy_data(&mut rows, count)?;
    Ok(rows.into_iter().map(|row| row != 0).collect())
}
