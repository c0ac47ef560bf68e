//! The table of the algorithms: names, aliases, and what each takes.

use serde::{Serialize, Serializer};

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

impl SchedulerAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 20] = [
        Self::Ddim,
        Self::Ddpm,
        Self::Pndm,
        Self::Lms,
        Self::Euler,
        Self::EulerAncestral,
        Self::Heun,
        Self::Dpm2,
        Self::Dpm2Ancestral,
        Self::Dpmpp2m,
        Self::Dpmpp3m,
        Self::Dpmpp2sAncestral,
        Self::DpmppSde,
        Self::Dpmpp2mSde,
        Self::Dpmpp3mSde,
        Self::Deis,
        Self::Unipc,
        Self::Lcm,
        Self::Tcd,
        Self::Ipndm,
    ];

    /// The canonical name, such as `dpmpp_2m`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddim => "ddim",
            Self::Ddpm => "ddpm",
            Self::Pndm => "pndm",
            Self::Lms => "lms",
            Self::Euler => "euler",
            Self::EulerAncestral => "euler_ancestral",
            Self::Heun => "heun",
            Self::Dpm2 => "dpm2",
            Self::Dpm2Ancestral => "dpm2_ancestral",
            Self::Dpmpp2m => "dpmpp_2m",
            Self::Dpmpp3m => "dpmpp_3m",
            Self::Dpmpp2sAncestral => "dpmpp_2s_ancestral",
            Self::DpmppSde => "dpmpp_sde",
            Self::Dpmpp2mSde => "dpmpp_2m_sde",
            Self::Dpmpp3mSde => "dpmpp_3m_sde",
            Self::Deis => "deis",
            Self::Unipc => "unipc",
            Self::Lcm => "lcm",
            Self::Tcd => "tcd",
            Self::Ipndm => "ipndm",
        }
    }

    /// Other names: those of AUTOMATIC1111, ComfyUI, stable-diffusion.cpp and k-diffusion, and the classes of diffusers.
    pub fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Ddim => &["DDIMScheduler"],
            Self::Ddpm => &["DDPMScheduler"],
            Self::Pndm => &["PLMS", "PNDMScheduler"],
            Self::Lms => &["k_lms", "LMSDiscreteScheduler"],
            Self::Euler => &["k_euler", "EulerDiscreteScheduler"],
            Self::EulerAncestral => &["Euler a", "k_euler_a", "k_euler_ancestral", "EulerAncestralDiscreteScheduler"],
            Self::Heun => &["k_heun", "HeunDiscreteScheduler"],
            Self::Dpm2 => &["dpm_2", "k_dpm_2", "KDPM2DiscreteScheduler"],
            Self::Dpm2Ancestral => {
                &["DPM2 a", "dpm_2_ancestral", "k_dpm_2_a", "k_dpm_2_ancestral", "KDPM2AncestralDiscreteScheduler"]
            }
            Self::Dpmpp2m => &["DPM++ 2M", "k_dpmpp_2m", "DPMSolverMultistepScheduler"],
            Self::Dpmpp3m => &["DPM++ 3M"],
            Self::Dpmpp2sAncestral => &["DPM++ 2S a", "dpm++2s_a", "k_dpmpp_2s_a", "k_dpmpp_2s_ancestral"],
            Self::DpmppSde => &["DPM++ SDE", "dpmpp_sde_gpu", "k_dpmpp_sde", "DPMSolverSDEScheduler"],
            Self::Dpmpp2mSde => &["DPM++ 2M SDE", "dpm++2m_sde", "dpmpp_2m_sde_gpu", "k_dpmpp_2m_sde"],
            Self::Dpmpp3mSde => &["DPM++ 3M SDE", "dpmpp_3m_sde_gpu", "k_dpmpp_3m_sde"],
            Self::Deis => &["DEISMultistepScheduler"],
            Self::Unipc => &["UniPC", "uni_pc", "uni_pc_bh2", "UniPCMultistepScheduler"],
            Self::Lcm => &["LCMScheduler"],
            Self::Tcd => &["TCDScheduler"],
            Self::Ipndm => &["k_ipndm", "IPNDMScheduler"],
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
            Self::Lcm | Self::Tcd => &[],
            Self::Ddim | Self::Ddpm | Self::Pndm => &[SigmaSchedule::SgmUniform],
            _ => &SigmaSchedule::NAMED,
        }
    }

    /// What `eta` is when a request names none, if the algorithm takes it: the share of the noise that is drawn anew.
    pub fn default_eta(self) -> Option<f64> {
        match self {
            Self::Ddim => Some(0.0),
            Self::Tcd => Some(0.3),
            Self::EulerAncestral
            | Self::Dpm2Ancestral
            | Self::Dpmpp2sAncestral
            | Self::DpmppSde
            | Self::Dpmpp2mSde
            | Self::Dpmpp3mSde => Some(1.0),
            _ => None,
        }
    }

    /// Draws noise in its steps when a request names no `eta`.
    pub fn is_stochastic(self) -> bool {
        matches!(self, Self::Ddpm | Self::Lcm) || self.default_eta().is_some_and(|eta| eta > 0.0)
    }

    /// UNet calls in one of the user's steps, but for the last, which may need one only.
    pub fn unet_calls_per_step(self) -> u32 {
        if matches!(self, Self::Heun | Self::Dpm2 | Self::Dpm2Ancestral | Self::Dpmpp2sAncestral | Self::DpmppSde) { 2 } else { 1 }
    }
}

impl Serialize for SchedulerAlgorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
