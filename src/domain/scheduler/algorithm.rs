//! The table of the algorithms: names, aliases, and what each takes.

use super::{SigmaSchedule, bare};

/// A noise scheduler's algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SchedulerAlgorithm {
    /// Denoising diffusion implicit models (Song et al., 2020), diffusers' `DDIMScheduler`.
    Ddim,
    /// Denoising diffusion probabilistic models (Ho et al., 2020), diffusers' `DDPMScheduler`.
    Ddpm,
    /// Pseudo numerical methods (Liu et al., 2022), diffusers' `PNDMScheduler`.
    Pndm,
    /// Linear multistep on the probability-flow ODE (Crowson), diffusers' `LMSDiscreteScheduler`.
    Lms,
    /// Euler's method on the probability-flow ODE (Karras et al., 2022), diffusers' `EulerDiscreteScheduler`.
    Euler,
    /// Euler's method with ancestral noise (Crowson), diffusers' `EulerAncestralDiscreteScheduler`.
    EulerAncestral,
    /// Heun's method (Karras et al., 2022), diffusers' `HeunDiscreteScheduler`.
    Heun,
    /// DPM-Solver-2 as the midpoint method in log σ (Karras et al., 2022, algorithm 2), diffusers' `KDPM2DiscreteScheduler`.
    Dpm2,
    /// The same with ancestral noise, diffusers' `KDPM2AncestralDiscreteScheduler`.
    Dpm2Ancestral,
    /// DPM-Solver++ of second order, multistep (Lu et al., 2022), diffusers' `DPMSolverMultistepScheduler`.
    Dpmpp2m,
    /// The same of third order.
    Dpmpp3m,
    /// DPM-Solver++ of second order, single step, with ancestral noise, k-diffusion's `sample_dpmpp_2s_ancestral`.
    Dpmpp2sAncestral,
    /// Stochastic DPM-Solver++, single step (Crowson), diffusers' `DPMSolverSDEScheduler`.
    DpmppSde,
    /// Stochastic DPM-Solver++ of second order, multistep, diffusers' `DPMSolverMultistepScheduler` with `sde-dpmsolver++`.
    Dpmpp2mSde,
    /// The same of third order.
    Dpmpp3mSde,
    /// Diffusion exponential integrator (Zhang and Chen, 2022), diffusers' `DEISMultistepScheduler`.
    Deis,
    /// Unified predictor-corrector (Zhao et al., 2023), diffusers' `UniPCMultistepScheduler`.
    Unipc,
    /// Latent consistency models (Luo et al., 2023), diffusers' `LCMScheduler`.
    Lcm,
    /// Trajectory consistency distillation (Zheng et al., 2024), diffusers' `TCDScheduler`.
    Tcd,
    /// Improved pseudo numerical methods (Liu et al., 2022; Zhang and Chen, 2022), as diffusers' `IPNDMScheduler` on the model's own noise
    /// levels.
    Ipndm,
}

use SchedulerAlgorithm as A;

impl SchedulerAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 20] = [
        A::Ddim,
        A::Ddpm,
        A::Pndm,
        A::Lms,
        A::Euler,
        A::EulerAncestral,
        A::Heun,
        A::Dpm2,
        A::Dpm2Ancestral,
        A::Dpmpp2m,
        A::Dpmpp3m,
        A::Dpmpp2sAncestral,
        A::DpmppSde,
        A::Dpmpp2mSde,
        A::Dpmpp3mSde,
        A::Deis,
        A::Unipc,
        A::Lcm,
        A::Tcd,
        A::Ipndm,
    ];

    /// The canonical name, such as `dpmpp_2m`.
    pub fn name(self) -> &'static str {
        match self {
            A::Ddim => "ddim",
            A::Ddpm => "ddpm",
            A::Pndm => "pndm",
            A::Lms => "lms",
            A::Euler => "euler",
            A::EulerAncestral => "euler_ancestral",
            A::Heun => "heun",
            A::Dpm2 => "dpm2",
            A::Dpm2Ancestral => "dpm2_ancestral",
            A::Dpmpp2m => "dpmpp_2m",
            A::Dpmpp3m => "dpmpp_3m",
            A::Dpmpp2sAncestral => "dpmpp_2s_ancestral",
            A::DpmppSde => "dpmpp_sde",
            A::Dpmpp2mSde => "dpmpp_2m_sde",
            A::Dpmpp3mSde => "dpmpp_3m_sde",
            A::Deis => "deis",
            A::Unipc => "unipc",
            A::Lcm => "lcm",
            A::Tcd => "tcd",
            A::Ipndm => "ipndm",
        }
    }

    /// Other names: those of AUTOMATIC1111, ComfyUI, stable-diffusion.cpp and k-diffusion, and the classes of diffusers.
    pub fn aliases(self) -> &'static [&'static str] {
        match self {
            A::Ddim => &["DDIMScheduler"],
            A::Ddpm => &["DDPMScheduler"],
            A::Pndm => &["PLMS", "PNDMScheduler"],
            A::Lms => &["k_lms", "LMSDiscreteScheduler"],
            A::Euler => &["k_euler", "EulerDiscreteScheduler"],
            A::EulerAncestral => &["Euler a", "k_euler_a", "k_euler_ancestral", "EulerAncestralDiscreteScheduler"],
            A::Heun => &["k_heun", "HeunDiscreteScheduler"],
            A::Dpm2 => &["dpm_2", "k_dpm_2", "KDPM2DiscreteScheduler"],
            A::Dpm2Ancestral => &["DPM2 a", "dpm_2_ancestral", "k_dpm_2_a", "k_dpm_2_ancestral", "KDPM2AncestralDiscreteScheduler"],
            A::Dpmpp2m => &["DPM++ 2M", "k_dpmpp_2m", "DPMSolverMultistepScheduler"],
            A::Dpmpp3m => &["DPM++ 3M"],
            A::Dpmpp2sAncestral => &["DPM++ 2S a", "dpm++2s_a", "k_dpmpp_2s_a", "k_dpmpp_2s_ancestral"],
            A::DpmppSde => &["DPM++ SDE", "dpmpp_sde_gpu", "k_dpmpp_sde", "DPMSolverSDEScheduler"],
            A::Dpmpp2mSde => &["DPM++ 2M SDE", "dpm++2m_sde", "dpmpp_2m_sde_gpu", "k_dpmpp_2m_sde"],
            A::Dpmpp3mSde => &["DPM++ 3M SDE", "dpmpp_3m_sde_gpu", "k_dpmpp_3m_sde"],
            A::Deis => &["DEISMultistepScheduler"],
            A::Unipc => &["UniPC", "uni_pc", "uni_pc_bh2", "UniPCMultistepScheduler"],
            A::Lcm => &["LCMScheduler"],
            A::Tcd => &["TCDScheduler"],
            A::Ipndm => &["k_ipndm", "IPNDMScheduler"],
        }
    }

    /// Whether a spelling in its bare form means this algorithm.
    pub(super) fn is_called(self, wanted: &str) -> bool {
        bare(self.name()) == wanted || self.aliases().iter().any(|alias| bare(alias) == wanted)
    }

    /// The sigma schedules that may be named behind the algorithm. Those without sigmas of their own know the training's timesteps only; LCM
    /// and TCD know those of their distillation only.
    pub fn sigma_schedules(self) -> &'static [SigmaSchedule] {
        match self {
            A::Lcm | A::Tcd => &[],
            A::Ddim | A::Ddpm | A::Pndm => &[SigmaSchedule::SgmUniform],
            _ => &SigmaSchedule::NAMED,
        }
    }

    /// What `eta` is when a request names none, if the algorithm takes it: the share of the noise that is drawn anew.
    pub fn default_eta(self) -> Option<f64> {
        match self {
            A::Ddim => Some(0.0),
            A::Tcd => Some(0.3),
            A::EulerAncestral | A::Dpm2Ancestral | A::Dpmpp2sAncestral | A::DpmppSde | A::Dpmpp2mSde | A::Dpmpp3mSde => Some(1.0),
            _ => None,
        }
    }

    /// Draws noise in its steps when a request names no `eta`.
    pub fn is_stochastic(self) -> bool {
        matches!(self, A::Ddpm | A::Lcm) || self.default_eta().is_some_and(|eta| eta > 0.0)
    }

    /// UNet calls in one of the user's steps, but for the last, which may need one only.
    pub fn unet_calls_per_step(self) -> u32 {
        if matches!(self, A::Heun | A::Dpm2 | A::Dpm2Ancestral | A::Dpmpp2sAncestral | A::DpmppSde) { 2 } else { 1 }
    }
}
