//! DPM-Solver++ (Lu et al., 2022), multistep, of first to third order, as an ODE and as an SDE; diffusers' `DPMSolverMultistepScheduler`.

use super::{
    Call, Combination, Plan, PlanOrder, SchedulerConfig,
    combination::{NOISE, PREDICTION, SAMPLE, history},
    config::{FinalSigmas, SolverType},
    vp::{Level, VpLevels, multistep_order},
};

/// Below this many steps diffusers takes the last ones in lower order (`lower_order_final`).
pub(super) const FEW_STEPS: usize = 15;

pub(super) fn plan(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let grid = VpLevels::new(config, order);
    // The ODE takes no eta; an SDE with none is the ODE.
    let eta = order.eta();
    grid.plan(config, order.begin, |index| {
        let unstable_end = config.euler_at_final || config.final_sigmas_type == FinalSigmas::Zero;
        let solver_order = multistep_order(config, order, index, unstable_end);
        let combine = Solver { eta, solver_type: config.solver_type, grid: &grid, index }.combination(solver_order);
        Call { combine, record: Some(PREDICTION), ..grid.call(index) }
    })
}

/// One step of the solver.
struct Solver<'a> {
    eta: f64,
    solver_type: SolverType,
    grid: &'a VpLevels,
    index: usize,
}

impl Solver<'_> {
    /// Equation (9) of the paper in first order, its appendix in the others. With H = (1 + η) h, D₀ = x₀ and D₁, D₂ the divided differences of
    /// the predictions: `σ_to / σ_from · e^(−η h) · x − α_to · (e^−H − 1) · D₀ + weight₁ · D₁ + weight₂ · D₂ + noise`.
    fn combination(&self, order: usize) -> Combination {
        let (from, to) = self.grid.of_step(self.index);
        let h = to.lambda - from.lambda;
        let wide = (1.0 + self.eta) * h;
        let gain = -to.mix.signal * (-wide).exp_m1();
        let (damping, noise) = if self.eta > 0.0 {
            ((-self.eta * h).exp(), to.mix.noise * (-(-2.0 * self.eta * h).exp_m1()).sqrt())
        } else {
            (1.0, 0.0)
        };
        let first = SAMPLE * (to.mix.noise / from.mix.noise * damping) + PREDICTION * gain + NOISE * noise;
        match order {
            1 => first,
            2 => first + self.slope(0) * self.second_weight(to, wide, gain),
            _ => first + self.third_order(to, wide),
        }
    }

    /// The difference of two predictions, divided by its share of the step: of this one and the last, or one step earlier.
    fn slope(&self, back: usize) -> Combination {
        let (from, to) = self.grid.of_step(self.index);
        let (late, early) = (self.grid.level(self.index - back), self.grid.level(self.index - back - 1));
        let share = (late.lambda - early.lambda) / (to.lambda - from.lambda);
        let late = if back == 0 { PREDICTION } else { history(back - 1) };
        (late - history(back)) * (1.0 / share)
    }

    fn second_weight(&self, to: Level, wide: f64, gain: f64) -> f64 {
        match self.solver_type {
            SolverType::Heun => to.mix.signal * ((-wide).exp_m1() / wide + 1.0),
            _ => 0.5 * gain,
        }
    }

    fn third_order(&self, to: Level, wide: f64) -> Combination {
        let level = |back: usize| self.grid.level(self.index - back).lambda;
        let (near, far) = (level(0) - level(1), level(1) - level(2));
        let h = to.lambda - level(0);
        let (slope, before) = (self.slope(0), self.slope(1));
        let first = slope + (slope - before) * (near / (near + far));
        let second = (slope - before) * (h / (near + far));
        let phi = (-wide).exp_m1() / wide + 1.0;
        // The sign of the half differs between diffusers' ODE and SDE.
        let half = if self.eta > 0.0 { 0.5 } else { -0.5 };
        first * (to.mix.signal * phi) - second * (to.mix.signal * (phi / wide + half))
    }
}
