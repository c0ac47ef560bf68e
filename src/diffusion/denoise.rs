//! One UNet call of many canvases, and the step that each makes of it.

use tch::{Kind, Tensor};

use super::{
    canvas::{Canvas, Moved},
    guidance::GuidanceRows,
    layers::{Result, per_row},
    schedulers::{Call, Combination, HISTORY, Limit},
    unet::UNet,
};
use crate::dispatch::ports::{CanvasState, EngineError};

/// Moves every canvas forward by one UNet call; answers for each of them. On an outer error no canvas has moved: they are only written to when
/// everything has been computed.
pub(super) fn step(unet: &UNet, kind: Kind, canvases: &mut [&mut Canvas]) -> Result<Vec<std::result::Result<(), EngineError>>> {
    let calls: Vec<Call> = canvases.iter().filter_map(|canvas| canvas.next_call().copied()).collect();
    if calls.len() != canvases.len() {
        return Err(tch::TchError::Shape("a canvas without steps left was stepped".to_owned()));
    }
    for canvas in canvases.iter_mut() {
        canvas.draw_noise()?;
    }
    let latents: Vec<&Tensor> = canvases.iter().map(|canvas| &canvas.latents).collect();
    let sample = Tensor::f_cat(&latents, 0)?; // [B, C, h, w]
    let model_output = predict(unet, kind, canvases, (&sample, &calls))?;
    let moved = mix(canvases, &calls, sample, model_output)?;
    let finite = finite_rows(&moved.prev_sample)?;
    let row = |(row, canvas): (i64, &&mut Canvas)| {
        let own = moved.row(row)?;
        Ok(Moved { prev_sample: canvas.put_back(own.prev_sample)?, ..own })
    };
    let rows = (0..).zip(canvases.iter()).map(row).collect::<Result<Vec<_>>>()?;
    let settle = |((canvas, row), finite): ((&mut &mut Canvas, Moved), bool)| {
        let step = canvas.progress().0 + 1;
        canvas.advance(row);
        if finite { Ok(()) } else { Err(EngineError::NotFinite { step }) }
    };
    Ok(canvases.iter_mut().zip(rows).zip(finite).map(settle).collect())
}

/// The guided model output of every canvas, `[B, C, h, w]` float32, in one UNet call.
fn predict(unet: &UNet, kind: Kind, canvases: &[&mut Canvas], (sample, calls): (&Tensor, &[Call])) -> Result<Tensor> {
    let rows = GuidanceRows::of(canvases.iter().map(|canvas| canvas.conditioning()).collect());
    let of_calls = |value: fn(&Call) -> f64| calls.iter().map(value).collect::<Vec<f64>>();
    let scaled = sample.f_mul(&per_row(&of_calls(|call| call.input_scale), sample.device())?)?;
    let timesteps = Tensor::f_from_slice(&rows.expand(&of_calls(|call| call.timestep)))?;
    let timesteps = timesteps.f_to_kind(Kind::Float)?.f_to_device(sample.device())?; // [rows]
    let model_input = rows.model_input(&scaled)?.f_to_kind(kind)?; // [rows, C + C', h, w]
    let model_output = unet.forward(&model_input, &timesteps, rows.condition()?.as_ref())?;
    rows.combine(&model_output.f_to_kind(Kind::Float)?)
}

/// The schedulers' combinations, all canvases at once.
fn mix(canvases: &[&mut Canvas], calls: &[Call], sample: Tensor, model_output: Tensor) -> Result<Moved> {
    let of_calls = |value: fn(&Call) -> f64| per_row(&calls.iter().map(value).collect::<Vec<f64>>(), sample.device());
    let predicted = sample.f_mul(&of_calls(|call| call.predict.sample)?)?;
    let predicted = predicted.f_add(&model_output.f_mul(&of_calls(|call| call.predict.model_output)?)?)?;
    let pred_original_sample = limit(predicted, canvases)?;
    let terms = Terms { sample, model_output, pred_original_sample };
    let records: Vec<Combination> = calls.iter().map(|call| call.record.unwrap_or_default()).collect();
    let is_recorded = calls.iter().any(|call| call.record.is_some());
    Ok(Moved {
        prev_sample: terms.combine(canvases, &calls.iter().map(|call| call.combine).collect::<Vec<_>>())?,
        record: if is_recorded { Some(terms.combine(canvases, &records)?) } else { None },
        pred_original_sample: terms.pred_original_sample,
    })
}

/// What the schedulers combine, `[B, C, h, w]` each.
struct Terms {
    sample: Tensor,
    model_output: Tensor,
    pred_original_sample: Tensor,
}

impl Terms {
    /// The sum of the terms, each row with its own coefficients. A term that no canvas uses is left out; that changes no bit of those that
    /// do without it in a mixed batch: the sum begins at +0, is then never -0, and a number that is not -0 stays what it is when ±0 is added.
    fn combine(&self, canvases: &[&mut Canvas], combinations: &[Combination]) -> Result<Tensor> {
        let mut sum = self.sample.f_zeros_like()?;
        let mut add = |coefficient: &dyn Fn(&Combination) -> f64, term: &dyn Fn() -> Result<Tensor>| -> Result<()> {
            let coefficients: Vec<f64> = combinations.iter().map(coefficient).collect();
            if coefficients.iter().any(|&coefficient| coefficient != 0.0) {
                sum = sum.f_add(&term()?.f_mul(&per_row(&coefficients, self.sample.device())?)?)?;
            }
            Ok(())
        };
        add(&|one| one.sample, &|| Ok(self.sample.shallow_clone()))?;
        add(&|one| one.model_output, &|| Ok(self.model_output.shallow_clone()))?;
        add(&|one| one.pred_original_sample, &|| Ok(self.pred_original_sample.shallow_clone()))?;
        add(&|one| one.noise, &|| stack(canvases, |canvas| canvas.noise.as_ref()))?;
        for back in 0..HISTORY {
            add(&|one| one.history[back], &|| stack(canvases, |canvas| canvas.history.get(back)))?;
        }
        Ok(sum)
    }
}

/// A tensor of each canvas, `[B, C, h, w]`. One that does not have it has coefficient 0 there: its own latents, which are finite, stand in.
fn stack(canvases: &[&mut Canvas], of: impl Fn(&Canvas) -> Option<&Tensor>) -> Result<Tensor> {
    let tensors: Vec<&Tensor> = canvases.iter().map(|canvas| of(canvas).unwrap_or(&canvas.latents)).collect();
    Tensor::f_cat(&tensors, 0)
}

/// Limits the predictions of the canvases whose scheduler asks for it.
fn limit(predictions: Tensor, canvases: &[&mut Canvas]) -> Result<Tensor> {
    if canvases.iter().all(|canvas| canvas.plan.limit == Limit::None) {
        return Ok(predictions);
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
