//! One UNet call of many canvases, and the step that each makes of it.
//!
//! Nothing here waits for the device until all of a step has been told it, so that it has the next step to do while this one is put together.

use std::sync::Arc;

use tch::{Kind, Tensor};

use super::{
    canvas::{Canvas, Check, Moved},
    deep_cache::{Depth, Predicted},
    finite::FiniteRows,
    guidance::GuidanceRows,
    layers::{Products, Result},
    numbers::{Floats, Numbers, Uploaded},
    schedulers::{Call, Combination, HISTORY, Limit},
    unet::UNet,
};
use crate::dispatch::ports::{CanvasState, EngineError};

/// Moves every canvas forward by one UNet call; answers for each of them. On an outer error no canvas has moved: they are only written to when
/// everything has been computed.
///
/// Where the device takes its time to say whether a canvas's latents are still numbers, the next call answers for this one, and the picture
/// for the last.
pub(super) fn step(unet: &UNet, kind: Kind, canvases: &mut [&mut Canvas]) -> Result<Vec<std::result::Result<(), EngineError>>> {
    let calls: Vec<Call> = canvases.iter().filter_map(|canvas| canvas.next_call().copied()).collect();
    if calls.len() != canvases.len() {
        return Err(tch::TchError::Shape("a canvas without steps left was stepped".to_owned()));
    }
    for canvas in canvases.iter_mut() {
        canvas.draw_noise()?;
    }
    let deep = deep_features(canvases)?;
    let is_kept = canvases.iter().any(|canvas| canvas.deep_cache.keeps());
    let depth = deep.as_ref().map_or(if is_kept { Depth::Keeping } else { Depth::Whole }, Depth::Shallow);
    let latents: Vec<&Tensor> = canvases.iter().map(|canvas| &canvas.latents).collect();
    let sample = Tensor::f_cat(&latents, 0)?; // [B, C, h, w]
    let mut numbers = Numbers::default();
    let rows = GuidanceRows::of(canvases.iter().map(|canvas| canvas.conditioning()).collect(), &mut numbers);
    let coefficients = Coefficients::of(&calls, &rows, &mut numbers);
    let products = canvases.first().map_or(Products::Exact, |canvas| canvas.products);
    let batch = Batch { coefficients, numbers: numbers.upload(sample.device())?, products };
    let Predicted { model_output, deep } = batch.predict((unet, kind), (&rows, depth), &sample)?;
    let mut deep = deep.map(|deep| rows.share_out(&deep)).transpose()?.unwrap_or_default().into_iter();
    let moved = batch.mix(canvases, sample, model_output)?;
    let finite = Arc::new(FiniteRows::of(&moved.prev_sample)?);
    let row = |(row, canvas): (i64, &&mut Canvas)| {
        let (own, deep) = (moved.row(row)?, deep.next().filter(|_| canvas.deep_cache.keeps()));
        Ok(Moved { prev_sample: canvas.put_back(own.prev_sample)?, deep, ..own })
    };
    let rows = (0..).zip(canvases.iter()).map(row).collect::<Result<Vec<_>>>()?;
    Ok(canvases.iter_mut().zip(rows).enumerate().map(|(row, (canvas, moved))| settle(canvas, moved, (&finite, row))).collect())
}

/// What the call runs on where all canvases have an earlier call's, `[rows, C, h, w]`; none where it is a whole one.
fn deep_features(canvases: &[&mut Canvas]) -> Result<Option<Tensor>> {
    let features: Vec<&Tensor> = canvases.iter().filter_map(|canvas| canvas.deep()).collect();
    match features.len() {
        0 => Ok(None),
        count if count == canvases.len() => Tensor::f_cat(&features, 0).map(Some),
        _ => Err(tch::TchError::Shape("whole calls and shallow ones cannot be one".to_owned())),
    }
}

/// Gives a canvas what a call made of it, and answers for what is known by now: on a GPU the call before, of which the device is done while it
/// has this one to do.
fn settle(canvas: &mut Canvas, moved: Moved, (rows, row): (&Arc<FiniteRows>, usize)) -> std::result::Result<(), EngineError> {
    let step = canvas.progress().0 + 1;
    canvas.advance(moved);
    // Drawn here while the device is busy; where there is no room for it now, the next call draws it.
    let _ = canvas.draw_noise();
    canvas.settle_check()?;
    canvas.check = Some(Check { rows: Arc::clone(rows), row, step });
    if rows.is_here()? { canvas.settle_check() } else { Ok(()) }
}

/// A step's numbers, on the device and where each is among them.
struct Batch {
    numbers: Uploaded,
    coefficients: Coefficients,
    /// All canvases of a call have the same.
    products: Products,
}

/// What the canvases' calls say, a value a canvas each; the timesteps, a value a row.
struct Coefficients {
    input_scale: Floats,
    timesteps: Floats,
    predict_sample: Floats,
    predict_model_output: Floats,
    combine: Terms<Option<Floats>>,
    /// Where a call leaves something for later ones.
    record: Option<Terms<Option<Floats>>>,
}

/// Something for each term of a [`Combination`].
struct Terms<T> {
    sample: T,
    model_output: T,
    pred_original_sample: T,
    noise: T,
    history: [T; HISTORY],
}

impl Coefficients {
    fn of(calls: &[Call], rows: &GuidanceRows, numbers: &mut Numbers) -> Self {
        let of_calls = |value: fn(&Call) -> f64| calls.iter().map(value).collect::<Vec<f64>>();
        let combine: Vec<Combination> = calls.iter().map(|call| call.combine).collect();
        let records: Vec<Combination> = calls.iter().map(|call| call.record.unwrap_or_default()).collect();
        let is_recorded = calls.iter().any(|call| call.record.is_some());
        Self {
            input_scale: numbers.floats(of_calls(|call| call.input_scale)),
            timesteps: numbers.floats(rows.expand(&of_calls(|call| call.timestep))),
            predict_sample: numbers.floats(of_calls(|call| call.predict.sample)),
            predict_model_output: numbers.floats(of_calls(|call| call.predict.model_output)),
            combine: Terms::of(&combine, numbers),
            record: is_recorded.then(|| Terms::of(&records, numbers)),
        }
    }
}

impl Terms<Option<Floats>> {
    /// None for terms that no canvas uses. Leaving them out changes no bit of those that do without them in a mixed batch: a sum begins at
    /// +0, is then never -0, and a number that is not -0 stays what it is when ±0 is added.
    fn of(combinations: &[Combination], numbers: &mut Numbers) -> Self {
        let mut list = |coefficient: &dyn Fn(&Combination) -> f64| {
            let coefficients: Vec<f64> = combinations.iter().map(coefficient).collect();
            coefficients.iter().any(|&coefficient| coefficient != 0.0).then(|| numbers.floats(coefficients))
        };
        Self {
            sample: list(&|one| one.sample),
            model_output: list(&|one| one.model_output),
            pred_original_sample: list(&|one| one.pred_original_sample),
            noise: list(&|one| one.noise),
            history: std::array::from_fn(|back| list(&|one| one.history[back])),
        }
    }
}

impl Batch {
    /// The guided model output of every canvas, `[B, C, h, w]` float32, in one UNet call, with the deep feature of all rows.
    fn predict(&self, (unet, kind): (&UNet, Kind), (rows, depth): (&GuidanceRows, Depth), sample: &Tensor) -> Result<Predicted> {
        let numbers = &self.numbers;
        let scaled = sample.f_mul(&numbers.per_row(&self.coefficients.input_scale)?)?;
        let timesteps = numbers.floats(&self.coefficients.timesteps)?; // [rows]
        let model_input = rows.model_input(&scaled, numbers)?.f_to_kind(kind)?; // [rows, C + C', h, w]
        let predicted = unet.forward(&model_input, &timesteps, rows.condition(unet, self.products)?.as_ref(), depth)?;
        Ok(Predicted { model_output: rows.combine(&predicted.model_output.f_to_kind(Kind::Float)?, numbers)?, ..predicted })
    }

    /// The schedulers' combinations, all canvases at once.
    fn mix(&self, canvases: &[&mut Canvas], sample: Tensor, model_output: Tensor) -> Result<Moved> {
        let Coefficients { predict_sample, predict_model_output, combine, record, .. } = &self.coefficients;
        let predicted = sample.f_mul(&self.numbers.per_row(predict_sample)?)?;
        let predicted = predicted.f_add(&model_output.f_mul(&self.numbers.per_row(predict_model_output)?)?)?;
        let pred_original_sample = limit(predicted, canvases)?;
        let made = Made { sample, model_output, pred_original_sample };
        Ok(Moved {
            prev_sample: made.combine(canvases, combine, &self.numbers)?,
            record: record.as_ref().map(|record| made.combine(canvases, record, &self.numbers)).transpose()?,
            pred_original_sample: made.pred_original_sample,
            deep: None,
        })
    }
}

/// What the schedulers combine, `[B, C, h, w]` each.
struct Made {
    sample: Tensor,
    model_output: Tensor,
    pred_original_sample: Tensor,
}

impl Made {
    /// The sum of the terms, each row with its own coefficients.
    fn combine(&self, canvases: &[&mut Canvas], terms: &Terms<Option<Floats>>, numbers: &Uploaded) -> Result<Tensor> {
        let mut sum = self.sample.f_zeros_like()?;
        let mut add = |coefficients: &Option<Floats>, term: &dyn Fn() -> Result<Tensor>| -> Result<()> {
            if let Some(coefficients) = coefficients {
                sum = sum.f_add(&term()?.f_mul(&numbers.per_row(coefficients)?)?)?;
            }
            Ok(())
        };
        add(&terms.sample, &|| Ok(self.sample.shallow_clone()))?;
        add(&terms.model_output, &|| Ok(self.model_output.shallow_clone()))?;
        add(&terms.pred_original_sample, &|| Ok(self.pred_original_sample.shallow_clone()))?;
        add(&terms.noise, &|| stack(canvases, |canvas| canvas.noise.as_ref()))?;
        for (back, coefficients) in terms.history.iter().enumerate() {
            add(coefficients, &|| stack(canvases, |canvas| canvas.history.get(back)))?;
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tch::Device;

    use super::*;
    use crate::{
        diffusion::{
            EngineSettings, GpuSettings, ModelFolder, Precision, RandomModel, ResidencySettings, StableDiffusion, VaeTiling,
            describe_models,
        },
        dispatch::ports::{Engine, IntoRgb, PaintOrder},
        domain::Submission,
    };

    /// Two canvases of a small model with random weights, at their beginning.
    fn begun(scheduler: &str) -> (StableDiffusion, Vec<Canvas>) {
        let settings = EngineSettings {
            device: "cpu".to_owned(),
            dtype: Precision::Float32,
            batch_invariant: None,
            threads: 1,
            vae_tiling: VaeTiling::Never,
            vae_memory: None,
            prompt_cache: 0,
            prompt_kv_cache: 0,
            gpu: GpuSettings::default(),
            models: vec![ModelFolder::random(RandomModel::Tiny)],
            residency: ResidencySettings::default(),
        };
        let mut engine = StableDiffusion::load(&settings).unwrap();
        let body = json!({"prompt": "a lake", "num_inference_steps": 4, "num_images": 2, "width": 64, "height": 64, "scheduler": scheduler});
        let submission = Submission::parse(body, &describe_models(&settings.models).unwrap(), 0).unwrap();
        let canvases = engine.begin(&PaintOrder::of(submission).unwrap(), 0..2).unwrap().canvases;
        (engine, canvases)
    }

    fn step_all(engine: &mut StableDiffusion, canvases: &mut [Canvas]) -> Vec<std::result::Result<(), EngineError>> {
        engine.step(&mut canvases.iter_mut().collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn a_late_answer_that_latents_are_no_numbers_names_their_step_and_canvas() {
        let (mut engine, mut canvases) = begun("ddim");
        assert_eq!(step_all(&mut engine, &mut canvases), [Ok(()), Ok(())]);
        assert!(canvases.iter().all(|canvas| canvas.check.is_none()), "a CPU answers at once");
        // As a GPU leaves it, whose answer comes while the next step runs.
        let latents = Tensor::zeros([2, 4, 8, 8], (Kind::Float, Device::Cpu));
        drop(latents.get(1).fill_(f64::NAN));
        let rows = Arc::new(FiniteRows::of(&latents).unwrap());
        for (row, canvas) in canvases.iter_mut().enumerate() {
            canvas.check = Some(Check { rows: Arc::clone(&rows), row, step: 1 });
        }
        assert_eq!(step_all(&mut engine, &mut canvases), [Ok(()), Err(EngineError::NotFinite { step: 1 })]);
    }

    #[test]
    fn what_the_device_has_not_said_of_the_last_call_fails_the_picture() {
        let (mut engine, mut canvases) = begun("ddim");
        (0..4).for_each(|_| assert_eq!(step_all(&mut engine, &mut canvases), [Ok(()), Ok(())]));
        let rows = Arc::new(FiniteRows::of(&Tensor::from_slice(&[0_f32, f32::NAN]).reshape([2, 1])).unwrap());
        for (row, canvas) in canvases.iter_mut().enumerate() {
            canvas.check = Some(Check { rows: Arc::clone(&rows), row, step: 4 });
        }
        let frames = engine.finish(&canvases.iter().collect::<Vec<_>>()).unwrap();
        let pictures: Vec<_> = frames.into_iter().map(|frame| frame.into_rgb().map(drop)).collect();
        assert_eq!(pictures, [Ok(()), Err(EngineError::NotFinite { step: 4 })]);
    }

    #[test]
    fn latents_that_a_step_makes_no_numbers_of_fail_in_that_step() {
        let (mut engine, mut canvases) = begun("ddim");
        assert_eq!(step_all(&mut engine, &mut canvases), [Ok(()), Ok(())]);
        canvases[0].latents = canvases[0].latents.full_like(f64::INFINITY);
        assert_eq!(step_all(&mut engine, &mut canvases), [Err(EngineError::NotFinite { step: 2 }), Ok(())]);
    }

    #[test]
    fn the_next_steps_noise_is_drawn_while_the_device_is_busy_and_only_once() {
        let (mut engine, mut canvases) = begun("euler_a");
        let mut alone = canvases[0].generator.clone();
        let first = alone.randn(canvases[0].latents.numel());
        assert!(canvases[0].noise.is_none());
        drop(step_all(&mut engine, &mut canvases));
        let second = alone.randn(canvases[0].latents.numel());
        assert_ne!(first, second);
        let drawn = canvases[0].noise.as_ref().unwrap().flatten(0, -1);
        assert_eq!(drawn, Tensor::from_slice(&second));
        canvases[0].draw_noise().unwrap();
        assert_eq!(canvases[0].noise.as_ref().unwrap().flatten(0, -1), drawn);
    }
}
