//! Noise schedulers as plain arithmetic in f64: a [`Plan`] holds, for every UNet call, the coefficients that combine the sample, the model's
//! output, fresh noise and what earlier calls left. No tensor is touched here, so plans are tested without libtorch.

mod beta;
mod combination;
mod config;
mod ddim;
mod ddpm;
mod deis;
mod distilled;
mod dpm2;
mod dpmpp_single;
mod dpmsolver_multistep;
mod euler;
mod heun;
mod limits;
mod linear_multistep;
mod noise_schedule;
mod pndm;
mod resolve;
mod sigmas;
mod unipc;
mod vp;

pub use combination::{Combination, HISTORY};
pub use config::{PredictionType, SchedulerConfig, TimestepSpacing};
pub use limits::limits;

use crate::domain::{SchedulerAlgorithm, SchedulerName};

/// Everything that a canvas does to its latents, call by call.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The standard deviation of the noise that text2img starts from.
    pub init_noise_sigma: f64,
    /// What is done to the prediction of the finished sample before it is used.
    pub limit: Limit,
    /// The UNet calls, those before the begin left out. A second-order scheduler makes two for one of the user's steps.
    pub calls: Vec<Call>,
}

/// One UNet call. With x the sample, m the model's output, ε fresh noise and x₀ the predicted finished sample:
/// `x₀ = limit(predict.sample · x + predict.model_output · m)`, and the next x is `combine` over (x, m, x₀, ε, history).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Call {
    /// What the UNet is told; some schedulers use fractions.
    pub timestep: f64,
    /// The UNet is given `input_scale · x`.
    pub input_scale: f64,
    /// How a picture's latents and noise are mixed to be at the noise level of x: where img2img begins, and what a mask keeps.
    pub start: NoiseMix,
    /// Makes the predicted finished sample.
    pub predict: Prediction,
    /// Makes the next sample.
    pub combine: Combination,
    /// How many records are no longer wanted after this call.
    pub forget: usize,
    /// Makes the record that later calls look back on, if any does.
    pub record: Option<Combination>,
    /// Another call of the same step of the user follows.
    pub is_partial: bool,
}

/// Coefficients of the predicted finished sample.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prediction {
    /// Of the sample.
    pub sample: f64,
    /// Of the model's output.
    pub model_output: f64,
}

/// `signal · latents + noise · ε`
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NoiseMix {
    /// Of the encoded picture.
    pub signal: f64,
    /// Of the noise.
    pub noise: f64,
}

/// What is done to the predicted finished sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Limit {
    /// Nothing, as in latent diffusion.
    None,
    /// Clamped to ±range (`clip_sample`).
    Clip {
        /// `clip_sample_range`
        range: f64,
    },
    /// Dynamic thresholding (Saharia et al., 2022, section 2.3).
    Threshold {
        /// `dynamic_thresholding_ratio`: the quantile of |x₀| that becomes the threshold.
        ratio: f64,
        /// `sample_max_value`: the largest threshold.
        max: f64,
    },
}

/// What a request asks of a scheduler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlanOrder {
    /// The scheduler.
    pub name: SchedulerName,
    /// `num_inference_steps`
    pub steps: usize,
    /// The first step to run; 0 for text2img, `steps` for none.
    pub begin: usize,
    /// The share of the noise that is drawn anew, 0 to 1; `None` is the algorithm's own.
    pub eta: Option<f64>,
}

impl PlanOrder {
    /// The algorithm's own `eta` where the request names none; 0 where it takes none.
    fn eta(&self) -> f64 {
        self.name.algorithm.default_eta().map_or(0.0, |own| self.eta.unwrap_or(own))
    }
}

impl Plan {
    /// The user's steps done after so many calls, and those to be done.
    pub fn progress(&self, calls: usize) -> (u32, u32) {
        let steps = |calls: &[Call]| calls.iter().filter(|call| !call.is_partial).count() as u32;
        (steps(&self.calls[..calls.min(self.calls.len())]), steps(&self.calls))
    }

    /// The user's steps to be done.
    pub fn steps(&self) -> usize {
        self.progress(0).1 as usize
    }

    /// How many of the user's steps begin at this timestep or above.
    pub fn steps_at_or_above(&self, timestep: f64) -> usize {
        let begins = |index: usize| index.checked_sub(1).is_none_or(|last| !self.calls[last].is_partial);
        let firsts = (0..self.calls.len()).filter(|&index| begins(index));
        firsts.take_while(|&index| self.calls[index].timestep >= timestep).count()
    }

    /// Leaves only the first steps of the user's.
    pub fn truncate(&mut self, steps: usize) {
        let kept = (0..=self.calls.len()).take_while(|&calls| self.progress(calls).0 as usize <= steps);
        let ends = |&calls: &usize| calls == 0 || !self.calls[calls - 1].is_partial;
        let calls = kept.filter(ends).last().unwrap_or(0);
        self.calls.truncate(calls);
    }

    /// Whether every coefficient is a number. It is not where a formula divides by nothing: ε says nothing of the picture at a timestep that
    /// is noise only (`rescale_betas_zero_snr`), to the schedulers without σ.
    pub fn is_finite(&self) -> bool {
        let numbers = |call: &Call| {
            let own = [call.timestep, call.input_scale, call.predict.sample, call.predict.model_output];
            let record = call.record.unwrap_or_default();
            own.into_iter().chain(call.combine.coefficients()).chain(record.coefficients())
        };
        self.calls.iter().flat_map(numbers).all(f64::is_finite)
    }
}

impl Call {
    /// Whether the canvas draws noise for it.
    pub fn draws_noise(&self) -> bool {
        self.combine.noise != 0.0 || self.record.is_some_and(|record| record.noise != 0.0)
    }
}

/// The plan of a request.
///
/// The scheduler is made as diffusers' `from_config` makes it: keys of the model's config carry over, absent keys take the defaults of the
/// class that is asked for.
pub fn plan(config: &SchedulerConfig, order: PlanOrder) -> Plan {
    use SchedulerAlgorithm as A;
    let config = &config.resolved(order.name);
    let order = &order;
    let made = match order.name.algorithm {
        A::Ddim => ddim::plan(config, order),
        A::Ddpm => ddpm::plan(config, order),
        A::Pndm => pndm::plan(config, order),
        A::Lms => linear_multistep::lms(config, order),
        A::Ipndm => linear_multistep::ipndm(config, order),
        A::Euler | A::EulerAncestral => euler::plan(config, order),
        A::Heun => heun::plan(config, order),
        A::Dpm2 | A::Dpm2Ancestral => dpm2::plan(config, order),
        A::Dpmpp2sAncestral => dpmpp_single::ancestral_2s(config, order),
        A::DpmppSde => dpmpp_single::sde(config, order),
        A::Dpmpp2m | A::Dpmpp3m | A::Dpmpp2mSde | A::Dpmpp3mSde => dpmsolver_multistep::plan(config, order),
        A::Deis => deis::plan(config, order),
        A::Unipc => unipc::plan(config, order),
        A::Lcm => distilled::lcm(config, order),
        A::Tcd => distilled::tcd(config, order),
    };
    if order.begin < order.steps { made } else { Plan { calls: Vec::new(), ..made } }
}
