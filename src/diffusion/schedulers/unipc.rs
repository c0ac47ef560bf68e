//! The unified predictor-corrector (Zhao et al., 2023), multistep with B(h); diffusers' `UniPCMultistepScheduler`.

use super::{
    Call, Combination, Plan, PlanOrder, SchedulerConfig,
    combination::{PREDICTION, SAMPLE, history},
    config::SolverType,
    vp::{Level, VpLevels},
};

/// A call corrects the sample that the last one predicted, by what the model now says of it, and predicts the next.
pub(super) fn plan(config: &SchedulerConfig, order: &PlanOrder) -> Plan {
    let grid = VpLevels::new(config, order);
    let unipc = Unipc { config, order, grid: &grid };
    grid.plan(config, order.begin, |index| {
        let output = unipc.output(index);
        let combine = unipc.predicted(unipc.corrected(index, output), index, output);
        Call { combine, record: Some(output), ..grid.call(index) }
    })
}

struct Unipc<'a> {
    config: &'a SchedulerConfig,
    order: &'a PlanOrder,
    grid: &'a VpLevels,
}

/// What both halves make of a step's noise levels.
struct Interval {
    /// `h` in the paper's φ functions: −h where x₀ is integrated, h where ε is.
    hh: f64,
    /// φ₁: `e^hh − 1`
    phi_1: f64,
    /// B(h)
    b_h: f64,
    /// Of the outputs.
    scale: f64,
    /// Of the sample.
    share: f64,
}

impl Unipc<'_> {
    /// x₀ of the sample as it was predicted, or ε with `predict_x0` off.
    fn output(&self, index: usize) -> Combination {
        if self.config.predict_x0 { PREDICTION } else { self.grid.level(index).mix.epsilon(self.config.prediction_type) }
    }

    /// The order of the predictor of a step; its corrector, which the next call brings, has the same.
    fn order_at(&self, index: usize) -> usize {
        let left = self.order.steps - index;
        let (_, to) = self.grid.of_step(index);
        // Without noise behind it h is infinite, and only the first order has a limit.
        let most = if to.sigma == 0.0 { 1 } else { self.config.solver_order };
        let most = if self.config.lower_order_final { most.min(left) } else { most };
        most.min(index - self.order.begin + 1)
    }

    fn interval(&self, from: Level, to: Level) -> Interval {
        let h = to.lambda - from.lambda;
        let hh = if self.config.predict_x0 { -h } else { h };
        let phi_1 = hh.exp_m1();
        let b_h = if self.config.solver_type == SolverType::Bh1 { hh } else { phi_1 };
        let (scale, share) = if self.config.predict_x0 {
            (to.mix.signal, to.mix.noise / from.mix.noise)
        } else {
            (to.mix.noise, to.mix.signal / from.mix.signal)
        };
        Interval { hh, phi_1, b_h, scale, share }
    }

    /// UniP: from the corrected sample to the next one. `output` is this call's.
    fn predicted(&self, sample: Combination, index: usize, output: Combination) -> Combination {
        let (from, to) = self.grid.of_step(index);
        let Interval { hh, phi_1, b_h, scale, share } = self.interval(from, to);
        let order = self.order_at(index);
        let shares = self.shares(index, order);
        let weights = predictor_weights(&shares, hh, b_h);
        let slopes = (1..order).map(|back| (history(back - 1) - output) * (scale * b_h * weights[back - 1] / shares[back - 1]));
        slopes.fold(sample * share - output * (scale * phi_1), |sum, slope| sum - slope)
    }

    /// UniC: the sample as the last step would have predicted it had it known this output. Predictor and corrector share their first-order part,
    /// so that the correction is the difference of the rest.
    fn corrected(&self, index: usize, output: Combination) -> Combination {
        let Some(before) = index.checked_sub(1).filter(|_| index > self.order.begin) else { return SAMPLE };
        if self.config.disable_corrector.contains(&before) {
            return SAMPLE;
        }
        let (from, to) = self.grid.of_step(before);
        let Interval { hh, b_h, scale, .. } = self.interval(from, to);
        let order = self.order_at(before);
        let shares = self.shares(before, order);
        let (predictor, corrector) = (predictor_weights(&shares, hh, b_h), corrector_weights(&shares, hh, b_h));
        let last = history(0);
        let slopes = (1..order).map(|back| {
            let weight = predictor[back - 1] - corrector[back - 1];
            (history(back) - last) * (weight / shares[back - 1])
        });
        let sum = slopes.fold((last - output) * corrector[order - 1], |sum, slope| sum + slope);
        SAMPLE + sum * (scale * b_h)
    }

    /// r of the earlier steps that an order looks back on: their distance in λ, as shares of the step's.
    fn shares(&self, index: usize, order: usize) -> Vec<f64> {
        let (from, to) = self.grid.of_step(index);
        let h = to.lambda - from.lambda;
        (1..order).map(|back| (self.grid.level(index - back).lambda - from.lambda) / h).collect()
    }
}

/// The weights of the predictor's divided differences.
fn predictor_weights(shares: &[f64], hh: f64, b_h: f64) -> Vec<f64> {
    // The paper's choice for the second order, where the equations leave one free.
    if shares.len() == 1 { vec![0.5] } else { solved(shares, hh, b_h) }
}

/// The weights of the corrector's, the last of which is that of the new output.
fn corrector_weights(shares: &[f64], hh: f64, b_h: f64) -> Vec<f64> {
    if shares.is_empty() { vec![0.5] } else { solved(&[shares, &[1.0]].concat(), hh, b_h) }
}

/// Solves `Σ weights[k] · shares[k]^i = φ_{i+2}(hh) · (i + 1)! · hh^… / B(h)`, equation (11) of the paper, for i from 0.
fn solved(shares: &[f64], hh: f64, b_h: f64) -> Vec<f64> {
    let mut phi = hh.exp_m1() / hh - 1.0;
    let mut factorial = 1.0;
    let rows = (0..shares.len() as i32).map(|power| {
        let mut row: Vec<f64> = shares.iter().map(|share| share.powi(power)).collect();
        row.push(phi * factorial / b_h);
        factorial *= f64::from(power + 2);
        phi = phi / hh - 1.0 / factorial;
        row
    });
    eliminate(rows.collect())
}

/// Gaussian elimination with pivoting of rows that end with their right-hand side.
fn eliminate(mut rows: Vec<Vec<f64>>) -> Vec<f64> {
    let size = rows.len();
    for column in 0..size {
        let pivot = (column..size).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs())).unwrap_or(column);
        rows.swap(column, pivot);
        let found = rows[column].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != column) {
            let share = row[column] / found[column];
            row.iter_mut().zip(&found).for_each(|(value, own)| *value -= share * own);
        }
    }
    (0..size).map(|index| rows[index][size] / rows[index][index]).collect()
}
