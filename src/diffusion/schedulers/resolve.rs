//! What a model's config means to the class that a request asks for, as diffusers' `from_config` has it: keys that the class does not know are
//! dropped, keys that are absent take the class's default.

use super::{
    SchedulerConfig, TimestepSpacing,
    combination::HISTORY,
    config::{BetaSchedule, FinalSigmas},
};
use crate::domain::{SchedulerAlgorithm as A, SchedulerName, SigmaSchedule};

impl SchedulerConfig {
    /// The config as the class of `name` reads it.
    pub(super) fn resolved(&self, name: SchedulerName) -> Self {
        let class = name.algorithm;
        let (beta_start, beta_end, beta_schedule) = default_betas(class);
        Self {
            beta_start: self.beta_start.or(Some(beta_start)),
            beta_end: self.beta_end.or(Some(beta_end)),
            beta_schedule: self.beta_schedule.or(Some(beta_schedule)),
            timestep_spacing: self.timestep_spacing.or(Some(default_spacing(class))),
            rescale_betas_zero_snr: self.rescale_betas_zero_snr && knows_zero_terminal_snr(class),
            clip_sample: default_clip_sample(class).map(|default| self.clip_sample.unwrap_or(default)),
            thresholding: self.thresholding && knows_thresholding(class),
            set_alpha_to_one: self.set_alpha_to_one.or(Some(class != A::Pndm)),
            sigma_min: self.sigma_min.filter(|_| knows_sigma_ends(class)),
            sigma_max: self.sigma_max.filter(|_| knows_sigma_ends(class)),
            final_sigmas_type: if knows_final_sigmas(class) { self.final_sigmas_type } else { FinalSigmas::Zero },
            solver_order: solver_order(class, self.solver_order),
            lambda_min_clipped: self.lambda_min_clipped.filter(|_| is_dpmsolver_multistep(class)),
            ..self.clone()
        }
        .with_sigmas(name)
    }

    /// The sigma schedule that the name has, else the model's where the class knows it.
    fn with_sigmas(self, name: SchedulerName) -> Self {
        let sigmas = match name.sigmas {
            SigmaSchedule::Own if knows_sigma_schedules(name.algorithm) => self.sigma_schedule(),
            named => named,
        };
        let spacing = if sigmas == SigmaSchedule::SgmUniform { Some(TimestepSpacing::Trailing) } else { self.timestep_spacing };
        Self {
            use_karras_sigmas: sigmas == SigmaSchedule::Karras,
            use_exponential_sigmas: sigmas == SigmaSchedule::Exponential,
            use_beta_sigmas: sigmas == SigmaSchedule::Beta,
            timestep_spacing: spacing,
            ..self
        }
    }

    /// The sigma schedule that the config's flags mean.
    pub(super) fn sigma_schedule(&self) -> SigmaSchedule {
        match (self.use_karras_sigmas, self.use_exponential_sigmas, self.use_beta_sigmas) {
            (true, _, _) => SigmaSchedule::Karras,
            (false, true, _) => SigmaSchedule::Exponential,
            (false, false, true) => SigmaSchedule::Beta,
            (false, false, false) => SigmaSchedule::Own,
        }
    }

    /// The spacing of the timesteps, in a config that is resolved.
    pub(super) fn spacing(&self) -> TimestepSpacing {
        self.timestep_spacing.unwrap_or(TimestepSpacing::Linspace)
    }

    /// The scheduler that the config itself names, if it is served.
    pub fn own_scheduler(&self) -> Option<SchedulerName> {
        let algorithm = SchedulerName::parse(&self.class_name)?.algorithm;
        let is_stochastic = match self.algorithm_type.as_str() {
            "dpmsolver++" | "deis" => false,
            "sde-dpmsolver++" => true,
            // The first DPM-Solver, on ε, is deprecated in diffusers and not served.
            _ if algorithm == A::Dpmpp2m => return None,
            _ => false,
        };
        let algorithm = match (algorithm, is_stochastic, self.solver_order >= 3) {
            (A::Dpmpp2m, false, true) => A::Dpmpp3m,
            (A::Dpmpp2m, true, false) => A::Dpmpp2mSde,
            (A::Dpmpp2m, true, true) => A::Dpmpp3mSde,
            (other, _, _) => other,
        };
        let sigmas = if knows_sigma_schedules(algorithm) { self.sigma_schedule() } else { SigmaSchedule::Own };
        Some(SchedulerName { algorithm, sigmas })
    }
}

fn default_betas(class: A) -> (f64, f64, BetaSchedule) {
    match class {
        A::Heun | A::Dpm2 | A::Dpm2Ancestral | A::DpmppSde => (0.00085, 0.012, BetaSchedule::Linear),
        A::Lcm | A::Tcd => (0.00085, 0.012, BetaSchedule::ScaledLinear),
        _ => (0.0001, 0.02, BetaSchedule::Linear),
    }
}

fn default_spacing(class: A) -> TimestepSpacing {
    match class {
        A::Ddim | A::Ddpm | A::Pndm | A::Lcm | A::Tcd => TimestepSpacing::Leading,
        _ => TimestepSpacing::Linspace,
    }
}

/// `None` where the class does not clip.
fn default_clip_sample(class: A) -> Option<bool> {
    match class {
        A::Ddim | A::Ddpm => Some(true),
        A::Heun | A::Lcm => Some(false),
        _ => None,
    }
}

fn is_dpmsolver_multistep(class: A) -> bool {
    matches!(class, A::Dpmpp2m | A::Dpmpp3m | A::Dpmpp2mSde | A::Dpmpp3mSde)
}

/// The classes without it paint a model of zero terminal SNR on its levels before they were rescaled, as they do in diffusers.
fn knows_zero_terminal_snr(class: A) -> bool {
    !matches!(class, A::Pndm | A::Lms | A::Heun | A::Dpm2 | A::Dpm2Ancestral | A::DpmppSde | A::Deis)
}

fn knows_thresholding(class: A) -> bool {
    is_dpmsolver_multistep(class) || matches!(class, A::Ddim | A::Ddpm | A::Lcm | A::Deis | A::Unipc)
}

fn knows_sigma_ends(class: A) -> bool {
    matches!(class, A::Euler | A::Unipc)
}

fn knows_final_sigmas(class: A) -> bool {
    is_dpmsolver_multistep(class) || matches!(class, A::Euler | A::Unipc)
}

fn knows_sigma_schedules(class: A) -> bool {
    let known = matches!(class, A::Lms | A::Euler | A::Heun | A::Dpm2 | A::Dpm2Ancestral | A::DpmppSde | A::Deis | A::Unipc);
    known || is_dpmsolver_multistep(class)
}

/// A name with an order in it has that order, but for a model whose config asks for less; UniPC's is bounded by what a canvas keeps.
fn solver_order(class: A, asked: usize) -> usize {
    match class {
        A::Dpmpp2m | A::Dpmpp2mSde => asked.clamp(1, 2),
        A::Dpmpp3m | A::Dpmpp3mSde => 3,
        A::Deis => asked.clamp(1, 3),
        _ => asked.clamp(1, HISTORY),
    }
}
