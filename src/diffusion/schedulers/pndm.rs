//! Pseudo numerical methods (Liu et al., 2022), diffusers' `PNDMScheduler`: pseudo linear multistep (PLMS), begun with pseudo Runge-Kutta
//! steps where the config does not skip them.

use super::{
    Call, Combination, Limit, NoiseMix, Plan, PlanOrder, SchedulerConfig, TimestepSpacing,
    combination::{MODEL_OUTPUT, SAMPLE, history},
    ddim::final_alpha,
    linear_multistep::adams_bashforth_sum,
    noise_schedule::{alphas_cumprod, timesteps},
};

/// The steps that the Runge-Kutta way needs: three, and the one that they lead to.
pub(super) const RUNGE_KUTTA_STEPS: usize = 4;

pub(super) fn plan(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let pndm = Pndm::new(config, order.steps);
    // img2img leaves the first steps out. diffusers' Runge-Kutta steps would then start from the noise level of those.
    let calls = if config.skip_prk_steps || order.begin > 0 || order.steps < RUNGE_KUTTA_STEPS {
        pndm.multistep(&pndm.doubled()[order.begin..])
    } else {
        pndm.runge_kutta()
    };
    Plan { init_noise_sigma: 1.0, limit: Limit::None, calls }
}

/// The noise levels, and the timesteps of the steps from the largest.
struct Pndm<'a> {
    config: &'a SchedulerConfig,
    alphas: Vec<f64>,
    timesteps: Vec<f64>,
    /// The distance of a step, in training timesteps.
    ratio: f64,
}

impl<'a> Pndm<'a> {
    fn new(config: &'a SchedulerConfig, steps: usize) -> Self {
        let mut visited = timesteps(config, steps);
        if config.spacing() == TimestepSpacing::Linspace {
            visited.iter_mut().for_each(|timestep| *timestep = timestep.round_ties_even());
        }
        Self { config, alphas: alphas_cumprod(config), timesteps: visited, ratio: (config.num_train_timesteps / steps) as f64 }
    }

    /// The timesteps of the UNet calls of PLMS: the second is visited twice.
    fn doubled(&self) -> Vec<f64> {
        let second = self.timesteps.get(1);
        self.timesteps.iter().take(2).chain(second).chain(self.timesteps.iter().skip(2)).copied().collect()
    }

    fn alpha(&self, timestep: f64) -> f64 {
        if timestep < 0.0 {
            return final_alpha(self.config, &self.alphas);
        }
        self.alphas[(timestep as usize).min(self.alphas.len() - 1)]
    }

    fn level(&self, timestep: f64) -> NoiseMix {
        NoiseMix::of_alpha_cumprod(self.alpha(timestep))
    }

    /// A call at a timestep that combines nothing yet.
    fn call(&self, timestep: f64) -> Call {
        let level = self.level(timestep);
        let predict = level.prediction(self.config.prediction_type);
        Call { timestep, input_scale: 1.0, start: level, predict, ..Call::default() }
    }

    /// Equation (11) of the paper as coefficients: (of the sample, of the model's output) on the way between two timesteps.
    fn transfer(&self, from: f64, to: f64) -> (f64, f64) {
        let (alpha, alpha_prev) = (self.alpha(from), self.alpha(to));
        let divisor = alpha * (1.0 - alpha_prev).sqrt() + (alpha * (1.0 - alpha) * alpha_prev).sqrt();
        let of_epsilon = -(alpha_prev - alpha) / divisor;
        let epsilon = self.level(from).epsilon(self.config.prediction_type);
        ((alpha_prev / alpha).sqrt() + of_epsilon * epsilon.sample, of_epsilon * epsilon.model_output)
    }

    /// PLMS. The first call goes to the next timestep, the second repeats that step with the mean of the outputs at both its ends, and from then
    /// on outputs of up to four steps are added up.
    fn multistep(&self, timesteps: &[f64]) -> Vec<Call> {
        let call = |(count, &timestep): (usize, &f64)| match (count, timesteps) {
            (1, [first, ..]) => {
                let (of_sample, of_output) = self.transfer(*first, first - self.ratio);
                let begin = (SAMPLE - history(0) * of_output) * (1.0 / of_sample);
                let (of_sample, of_output) = self.transfer(timestep + self.ratio, timestep);
                let combine = begin * of_sample + (MODEL_OUTPUT + history(0)) * (of_output / 2.0);
                Call { combine, ..self.call(timestep) }
            }
            _ => Call { is_partial: count == 0 && timesteps.len() > 1, ..self.linear(timestep, count) },
        };
        timesteps.iter().enumerate().map(call).collect()
    }

    /// A call with a sum of this output and of those that were recorded, `order` in all.
    fn linear(&self, timestep: f64, order: usize) -> Call {
        let (of_sample, of_output) = self.transfer(timestep, timestep - self.ratio);
        let combine = SAMPLE * of_sample + adams_bashforth_sum(MODEL_OUTPUT, order) * of_output;
        Call { combine, record: Some(MODEL_OUTPUT), ..self.call(timestep) }
    }

    /// Three Runge-Kutta steps of four calls, then PLMS with their first outputs.
    fn runge_kutta(&self) -> Vec<Call> {
        let half = (self.config.num_train_timesteps / self.timesteps.len() / 2) as f64;
        let first = self.timesteps[..RUNGE_KUTTA_STEPS].windows(2).flat_map(|ends| self.runge_kutta_step(ends[0], ends[1], half));
        let rest = self.timesteps[RUNGE_KUTTA_STEPS - 1..].iter().map(|&timestep| self.linear(timestep, 4));
        first.chain(rest).collect()
    }

    /// Equation (13) of the paper: the classical Runge-Kutta method with this transfer. Each call begins at the step's begin anew.
    fn runge_kutta_step(&self, from: f64, to: f64, half: f64) -> [Call; 4] {
        let visited = [from, to + half, to + half, to];
        let targets = [from - half, to + half, to, to];
        let transfers = targets.map(|target| self.transfer(from, target));
        let mean = (history(2) + history(1) * 2.0 + history(0) * 2.0 + MODEL_OUTPUT) * (1.0 / 6.0);
        std::array::from_fn(|call| {
            let begin = match call.checked_sub(1) {
                None => SAMPLE,
                Some(last) => (SAMPLE - history(0) * transfers[last].1) * (1.0 / transfers[last].0),
            };
            let output: Combination = if call == 3 { mean } else { MODEL_OUTPUT };
            let combine = begin * transfers[call].0 + output * transfers[call].1;
            // What only this step needs goes with its last call; the first output stays.
            let (forget, record) = if call == 3 { (2, None) } else { (0, Some(MODEL_OUTPUT)) };
            Call { combine, forget, record, is_partial: call < 3, ..self.call(visited[call]) }
        })
    }
}
