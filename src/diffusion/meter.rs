//! Counts what the layers compute, and times it by kind: for `easel bench`.
//!
//! A thread's meter is off unless [`metered`] has put one up around the work, and then costs a layer one look at a cell. FLOPs are those of
//! `torch.utils.flop_counter`: two for each multiplication and addition of a matrix product, a convolution or an attention, none for
//! anything else.

use std::{cell::Cell, time::Instant};

use tch::{Cuda, Device, Tensor};

use super::layers::Result;

/// The kinds of work that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    /// softmax(q·kᵀ)·v, without the projections around it.
    Attention,
    /// Convolutions.
    Conv,
    /// Matrix products with weights.
    Linear,
}

const OPS: usize = 3;

/// What a meter has seen, by kind: attention, convolutions, linears.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Readings {
    flops: [f64; OPS],
    seconds: [f64; OPS],
}

/// What a meter is to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// FLOPs alone.
    Flops,
    /// Seconds, too, of a device that is waited for before and after each operation.
    Seconds(Device),
}

impl Readings {
    /// All floating-point operations.
    pub fn flops(&self) -> f64 {
        self.flops.iter().sum()
    }

    /// The same for one of so many equal parts.
    pub(super) fn over(self, parts: f64) -> Self {
        Self { flops: self.flops.map(|flops| flops / parts), seconds: self.seconds.map(|seconds| seconds / parts) }
    }

    /// Floating-point operations of attention, of convolutions, and of matrix products with weights.
    pub fn flops_by_kind(&self) -> [f64; OPS] {
        self.flops
    }

    /// Seconds of attention, of convolutions, and of matrix products with weights; zeros where they were not timed.
    pub fn seconds_by_kind(&self) -> [f64; OPS] {
        self.seconds
    }
}

thread_local! {
    static METER: Cell<Option<(Look, Readings)>> = const { Cell::new(None) };
}

/// Does `work` under a meter of its own. A meter that was up before sees nothing of it.
pub(super) fn metered<T>(look: Look, work: impl FnOnce() -> T) -> (T, Readings) {
    /// Puts the meter before back, also when `work` panics.
    struct Before(Option<(Look, Readings)>);
    impl Drop for Before {
        fn drop(&mut self) {
            METER.set(self.0);
        }
    }
    let _before = Before(METER.replace(Some((look, Readings::default()))));
    let done = work();
    let readings = METER.get().map(|(_, readings)| readings).unwrap_or_default();
    (done, readings)
}

/// Whether this thread's work is under a meter.
pub(super) fn is_up() -> bool {
    METER.get().is_some()
}

/// Does one operation, each of whose output values takes so many multiplications and additions.
pub(super) fn measure(op: Op, macs_a_value: impl FnOnce() -> i64, work: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
    let Some((look, mut readings)) = METER.get() else { return work() };
    let (output, seconds) = timed(look, work);
    let output = output?;
    readings.flops[op as usize] += 2.0 * macs_a_value() as f64 * output.numel() as f64;
    readings.seconds[op as usize] += seconds;
    METER.set(Some((look, readings)));
    Ok(output)
}

fn timed<T>(look: Look, work: impl FnOnce() -> T) -> (T, f64) {
    let Look::Seconds(device) = look else { return (work(), 0.0) };
    wait_for(device);
    let start = Instant::now();
    let done = work();
    wait_for(device);
    (done, start.elapsed().as_secs_f64())
}

/// Waits until a GPU has done all that it was given; a CPU always has.
pub(super) fn wait_for(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::Kind;

    use super::*;
    use crate::diffusion::{
        deep_cache::Depth,
        device::Placement,
        files::ModelFiles,
        layers::Products,
        models::{
            clip::{ClipTextClass, ClipTextModel, HiddenLayer},
            time_embedding::AddedCondition,
            unet::{UNet2DConditionModel, UNetCondition},
            unet_prompt::UNetPrompt,
            vae::AutoencoderKL,
        },
    };

    const ON_CPU: Placement = Placement { device: Device::Cpu, kind: Kind::Float, batch_invariant: false };
    const LAST: HiddenLayer = HiddenLayer { skipped: 0, final_layer_norm: true };

    fn zeros(shape: &[i64]) -> Tensor {
        Tensor::zeros(shape, (Kind::Float, Device::Cpu))
    }

    /// FLOPs by `[attention, conv, linear]` that `torch.utils.flop_counter` counts in diffusers' and transformers' modules of the folder
    /// (`tests/golden/maker/flops.py`).
    fn golden(model: &str, part: &str) -> [f64; 3] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/flops.json")).unwrap();
        let flops: serde_json::Value = serde_json::from_str(&text).unwrap();
        ["attention", "conv", "linear"].map(|kind| flops[model][part][kind].as_f64().unwrap())
    }

    fn files(model: &str) -> ModelFiles {
        ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(model)).unwrap()
    }

    fn flops_of(work: impl FnOnce() -> Result<Tensor>) -> [f64; 3] {
        let (output, readings) = metered(Look::Flops, || tch::no_grad(work));
        assert!(output.is_ok());
        assert_eq!(readings.seconds_by_kind(), [0.0; 3]);
        readings.flops_by_kind()
    }

    #[test]
    fn the_flops_of_every_network_are_those_of_torchs_flop_counter() {
        for (model, width, is_xl) in [("tiny-sd1", 16, false), ("tiny-sd2", 24, false), ("tiny-sdxl", 40, true)] {
            let files = files(model);
            let unet = UNet2DConditionModel::load(&files, ON_CPU).unwrap();
            let added = || AddedCondition { text_embeds: zeros(&[2, 16]), time_ids: zeros(&[2, 6]) };
            let condition = UNetCondition {
                prompt: UNetPrompt::HiddenStates(zeros(&[2, 77, width])),
                added: is_xl.then(added),
                timestep_cond: None,
                products: Products::Exact,
            };
            let timesteps = Tensor::from_slice(&[5.0_f32, 5.0]);
            let whole = || unet.forward(&zeros(&[2, 4, 16, 24]), &timesteps, &condition, Depth::Whole);
            let counted = flops_of(|| whole().map(|predicted| predicted.model_output));
            assert_eq!(counted, golden(model, "unet"), "{model}");
            let vae = AutoencoderKL::load(&files, "vae", ON_CPU).unwrap();
            assert_eq!(flops_of(|| vae.decode(&zeros(&[1, 4, 8, 12]), None)), golden(model, "vae_decode"), "{model}");
            let text = ClipTextModel::load(&files, ("text_encoder", ClipTextClass::Plain), ON_CPU).unwrap();
            let counted = flops_of(|| text.forward(&[1; 77], LAST).map(|output| output.hidden));
            assert_eq!(counted, golden(model, "text_encoder"), "{model}");
        }
    }

    #[test]
    fn seconds_are_taken_when_they_are_asked_for_and_a_meter_ends_with_its_work() {
        let product = || measure(Op::Linear, || 64, || zeros(&[64, 64]).f_matmul(&zeros(&[64, 64])));
        let (_, timed) = metered(Look::Seconds(Device::Cpu), product);
        assert_eq!(timed.flops(), 2.0 * 64.0 * 64.0 * 64.0);
        assert!(timed.seconds_by_kind()[Op::Linear as usize] > 0.0);
        assert_eq!(timed.seconds_by_kind()[Op::Conv as usize], 0.0);
        assert!(!is_up());
        let (inner, outer) = metered(Look::Flops, || metered(Look::Flops, product).1);
        assert_eq!((inner.flops(), outer.flops()), (timed.flops(), 0.0));
    }
}
