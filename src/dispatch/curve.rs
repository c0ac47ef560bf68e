//! How long one UNet call of one kind takes by its rows, and how many rows are worth it. Pure: made of numbers that were measured.

use std::collections::BTreeMap;

/// The weight of the newest call in the running average of its rows.
const WEIGHT: f64 = 0.125;
/// A call counts for at most so many times what was expected: a hiccup of the machine must not pass for slowness.
const HICCUP: f64 = 2.0;
/// What twice the rows must bring at least in rows a second to be worth that all of them wait for each other.
const GAIN_OF_DOUBLING: f64 = 1.05;
/// By how much more where calls are long: one after the other, half of the canvases would be done in half of the time.
const MORE_OF_LONG: f64 = 1.1;
/// Seconds of a call that is neither short nor long.
const MIDDLING: f64 = 1.0;
/// Seconds that a call may take to find out what more rows bring, should they bring nothing.
const CHEAP: f64 = 1.0;
/// After so many other calls a number is found out anew: the machine may have been busy with something else then.
const FRESH: u64 = 128;
/// No call is quicker than this.
const QUICKEST: f64 = 1e-6;

/// [`Cell::samples`] after the first call that takes its usual time.
const USUAL: u32 = 2;

/// What has been measured of the calls with one number of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cell {
    seconds: f64,
    /// At most [`u32::MAX`].
    samples: u32,
    /// The number of the curve's call that was the last of these.
    last: u64,
}

impl Cell {
    /// The first calls are slow: memory is taken, kernels are chosen. Each replaces the one before, and so does the first of the usual ones,
    /// as does the first after a long time.
    fn note(&mut self, seconds: f64, call: u64) {
        let goes_on = !self.is_proven() || self.is_fresh(call);
        self.samples = if goes_on { self.samples.saturating_add(1) } else { USUAL };
        self.last = call;
        if self.samples <= USUAL {
            self.seconds = seconds;
        } else {
            let weight = WEIGHT.max(1.0 / f64::from(self.samples - 1));
            self.seconds += weight * (seconds.min(HICCUP * self.seconds) - self.seconds);
        }
    }

    fn is_proven(&self) -> bool {
        self.samples >= USUAL
    }

    fn is_fresh(&self, call: u64) -> bool {
        call - self.last < FRESH
    }
}

/// The seconds of one UNet call by its rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Curve {
    cells: BTreeMap<usize, Cell>,
    calls: u64,
}

impl Curve {
    /// A call of so many rows took so long, with all that belongs to it, where the first is slow and the second takes its usual time.
    #[cfg(test)]
    pub(super) fn note(&mut self, rows: usize, seconds: f64) {
        self.note_behind(1, rows, seconds);
    }

    /// A call of so many rows took so long, with all that belongs to it, where the first `slow` ones are slow: a second may be recorded.
    pub(super) fn note_behind(&mut self, slow: u32, rows: usize, seconds: f64) {
        self.calls += 1;
        let (seconds, last) = (seconds.max(QUICKEST), self.calls);
        let new = Cell { seconds, samples: USUAL.saturating_sub(slow), last };
        self.cells.entry(rows).and_modify(|cell| cell.note(seconds, last)).or_insert(new);
    }

    /// What a call of so many rows takes: measured, or on the line between its neighbours, or on that through the outermost two.
    /// Where one number of rows is known, rows are taken to bring nothing. `None` while nothing is known.
    pub(super) fn seconds(&self, rows: usize) -> Option<f64> {
        if let Some(cell) = self.cells.get(&rows) {
            return Some(cell.seconds);
        }
        let point = |(&rows, cell): (&usize, &Cell)| (rows as f64, cell.seconds);
        let below: Vec<(f64, f64)> = self.cells.range(..rows).rev().take(2).map(point).collect();
        let above: Vec<(f64, f64)> = self.cells.range(rows..).take(2).map(point).collect();
        let rows = rows as f64;
        match (below.as_slice(), above.as_slice()) {
            ([low, ..], [high, ..]) => Some(low.1 + (high.1 - low.1) * (rows - low.0) / (high.0 - low.0)),
            // More rows take no less time than fewer, and no more than in calls of their own.
            ([near, far], []) => {
                let slope = ((near.1 - far.1) / (near.0 - far.0)).clamp(0.0, near.1 / near.0);
                Some(near.1 + slope * (rows - near.0))
            }
            // Fewer rows than were ever measured: no slower than those.
            ([], [near, far]) => {
                let slope = ((far.1 - near.1) / (far.0 - near.0)).clamp(0.0, near.1 / near.0);
                Some((near.1 - slope * (near.0 - rows)).max(QUICKEST))
            }
            ([one], []) | ([], [one]) => Some(one.1 * rows / one.0),
            _ => None,
        }
    }

    /// The same curve for work that weighs `factor` times as much.
    pub(super) fn scaled(&self, factor: f64) -> Self {
        let scale = |(&rows, cell): (&usize, &Cell)| (rows, Cell { seconds: cell.seconds * factor, ..*cell });
        Self { cells: self.cells.iter().map(scale).collect(), calls: self.calls }
    }

    /// Whether there is anything to go by.
    pub(super) fn is_measured(&self) -> bool {
        !self.cells.is_empty()
    }

    /// The curve that has at each number of rows what `both` makes of the seconds of this one and of another.
    pub(super) fn with(&self, other: &Self, both: impl Fn(f64, f64) -> f64) -> Self {
        let joined = |(&rows, cell): (&usize, &Cell)| {
            let seconds = both(self.seconds(rows)?, other.seconds(rows)?);
            Some((rows, Cell { seconds, ..*cell }))
        };
        Self { cells: other.cells.iter().chain(&self.cells).filter_map(joined).collect(), calls: self.calls }
    }

    /// Which of the numbers of rows, which rise, is best: the most rows a second, where each doubling must bring its share.
    pub(super) fn best(&self, rows: &[usize]) -> usize {
        let worth = |rows: usize| self.worth(rows).unwrap_or(0.0);
        (1..rows.len()).fold(0, |best, place| if worth(rows[place]) > worth(rows[best]) { place } else { best })
    }

    /// Which of the numbers of rows, which rise, the next call should have: the best, or one of which too little is known. Of the numbers
    /// that may be tried it is the largest, since the best is known when the ends are and what lies between comes by itself.
    pub(super) fn next(&self, rows: &[usize]) -> usize {
        let most = self.most_rows_to_try();
        let may_try = &rows[..rows.iter().filter(|&&rows| rows <= most).count()];
        match may_try.last() {
            None => 0,
            Some(&largest) if !self.is_known(largest) => may_try.len() - 1,
            Some(_) => self.best(may_try),
        }
    }

    /// Rows a second, less what each doubling must bring, the more the longer it makes the call.
    fn worth(&self, rows: usize) -> Option<f64> {
        let seconds = self.seconds(rows)?;
        let patience = (1.0 + seconds / MIDDLING).powf(MORE_OF_LONG.log2());
        Some((rows as f64).powf(1.0 - GAIN_OF_DOUBLING.log2()) / (seconds * patience))
    }

    /// Twice as many as were ever seen to pay, or as many as take little time even if they bring nothing.
    fn most_rows_to_try(&self) -> usize {
        let proven: Vec<usize> = self.cells.iter().filter(|(_, cell)| cell.is_proven()).map(|(rows, _)| *rows).collect();
        let Some(&most) = proven.last() else { return 0 };
        let pays = self.best(&proven) == proven.len() - 1;
        let cheap = proven.iter().filter_map(|&rows| Some(rows as f64 * CHEAP / self.seconds(rows)?)).fold(0.0, f64::max);
        (cheap as usize).max(if pays { 2 * most } else { most })
    }

    /// Whether calls of about so many rows were measured, not long ago.
    fn is_known(&self, rows: usize) -> bool {
        let octave = |rows: usize| rows.next_power_of_two();
        let is_good = |cell: &Cell| cell.is_proven() && cell.is_fresh(self.calls);
        self.cells.iter().any(|(&measured, cell)| octave(measured) == octave(rows) && is_good(cell))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Canvases of two rows.
    const PAIRS: [usize; 8] = [2, 4, 6, 8, 10, 12, 14, 16];

    /// What is done on a machine whose calls take `seconds`, with eight canvases always there: the rows of each call.
    fn served(seconds: impl Fn(usize) -> f64, calls: usize) -> Vec<usize> {
        let mut curve = Curve::default();
        let call = |_| {
            let rows = PAIRS[curve.next(&PAIRS)];
            curve.note(rows, seconds(rows));
            rows
        };
        (0..calls).map(call).collect()
    }

    /// As it was measured of Stable Diffusion 1.5 at 512 × 512 on two cores: rows bring nothing.
    fn large_on_a_cpu(rows: usize) -> f64 {
        2.87 * rows as f64
    }

    /// About as it was measured of the demo model on two cores: 31 ms for 2 rows, 116 ms for 16.
    fn small_on_a_cpu(rows: usize) -> f64 {
        0.019 + 0.006 * rows as f64
    }

    #[test]
    fn where_rows_bring_nothing_one_canvas_goes_at_a_time_after_one_look_at_two() {
        assert_eq!(served(large_on_a_cpu, 8), [2, 2, 4, 4, 2, 2, 2, 2]);
    }

    /// As it was measured of Stable Diffusion 1.5 at 256 × 256 on two cores: 8 rows are done 1.14 times as fast as four times 2.
    fn middling_on_a_cpu(rows: usize) -> f64 {
        [(2, 1.09), (4, 2.06), (8, 3.82), (16, 7.63)].into_iter().find(|(measured, _)| *measured == rows).unwrap().1
    }

    #[test]
    fn where_rows_bring_little_and_calls_are_long_one_canvas_goes_at_a_time() {
        let curve = |scale: f64| {
            let mut curve = Curve::default();
            [2, 4, 8, 16].iter().for_each(|&rows| (0..2).for_each(|_| curve.note(rows, scale * middling_on_a_cpu(rows))));
            curve
        };
        let options = [2, 4, 8, 16];
        assert_eq!(options[curve(1.0).best(&options)], 2);
        assert_eq!(options[curve(0.01).best(&options)], 8, "nobody notices that they wait for each other");
    }

    #[test]
    fn where_rows_pay_all_go_as_soon_as_it_is_known_what_one_takes() {
        assert_eq!(served(small_on_a_cpu, 6), [2, 2, 16, 16, 16, 16]);
    }

    #[test]
    fn where_rows_pay_and_calls_are_long_they_double_as_long_as_they_do() {
        // They do up to eight.
        let seconds = |rows: usize| 3.0 + 0.3 * rows as f64 + if rows > 8 { (rows - 8) as f64 } else { 0.0 };
        assert_eq!(served(seconds, 12), [2, 2, 4, 4, 8, 8, 16, 16, 8, 8, 8, 8]);
    }

    #[test]
    fn what_was_measured_while_the_machine_was_busy_is_found_out_anew() {
        let mut curve = Curve::default();
        for call in 0..600 {
            let rows = PAIRS[curve.next(&PAIRS)];
            let busy = if call < 4 && rows > 2 { 4.0 } else { 1.0 };
            curve.note(rows, small_on_a_cpu(rows) * busy);
        }
        assert_eq!(PAIRS[curve.next(&PAIRS)], 16);
    }

    #[test]
    fn the_first_call_is_forgotten_and_a_hiccup_counts_little() {
        let mut curve = Curve::default();
        curve.note(2, 60.0);
        assert_eq!(curve.seconds(2), Some(60.0), "better than nothing");
        (0..20).for_each(|_| curve.note(2, 1.0));
        assert_eq!(curve.seconds(2), Some(1.0));
        curve.note(2, 500.0);
        assert!(curve.seconds(2) <= Some(1.125));
        (0..60).for_each(|_| curve.note(2, 3.0));
        assert!(curve.seconds(2) > Some(2.9), "slowness that lasts is believed");
    }

    #[test]
    fn where_the_second_call_is_recorded_the_third_is_the_first_that_is_believed() {
        let mut curve = Curve::default();
        let mut next = |seconds: f64| {
            curve.note_behind(2, 2, seconds);
            (curve.seconds(2), curve.cells[&2].is_proven())
        };
        assert_eq!(next(3.0), (Some(3.0), false), "better than nothing");
        assert_eq!(next(60.0), (Some(60.0), false));
        assert_eq!(next(1.0), (Some(1.0), true));
        assert_eq!(next(2.0), (Some(1.5), true));
    }

    #[test]
    fn a_recorded_call_that_comes_late_is_not_believed_either() {
        let mut curve = Curve::default();
        curve.note_behind(2, 16, 3.0);
        (0..2 * FRESH).for_each(|_| curve.note_behind(2, 2, 1.0));
        curve.note_behind(2, 16, 60.0);
        assert!(!curve.cells[&16].is_proven());
    }

    #[test]
    fn what_was_not_measured_lies_on_the_line() {
        let mut curve = Curve::default();
        assert_eq!(curve.seconds(2), None);
        curve.note(4, 8.0);
        assert_eq!(
            (curve.seconds(2), curve.seconds(8)),
            (Some(4.0), Some(16.0)),
            "no reason yet to believe that rows bring anything"
        );
        curve.note(8, 10.0);
        assert_eq!((curve.seconds(6), curve.seconds(12), curve.seconds(2)), (Some(9.0), Some(12.0), Some(7.0)));
        assert_eq!(curve.scaled(2.0).seconds(6), Some(18.0));
    }

    proptest! {
        #[test]
        fn whatever_rows_bring_what_is_done_comes_close_to_the_best_that_there_is(
            fixed in 0.0..4.0_f64,
            row in 0.01..4.0_f64,
            noise in prop::collection::vec(0.98..1.02_f64, 200),
        ) {
            let seconds = |rows: usize| fixed + row * rows as f64;
            let mut noise = noise.into_iter().cycle();
            let mut curve = Curve::default();
            let mut last = 0;
            for _ in 0..100 {
                last = PAIRS[curve.next(&PAIRS)];
                curve.note(last, seconds(last) * noise.next().unwrap());
            }
            let rate = |rows: usize| rows as f64 / seconds(rows);
            for rows in PAIRS {
                // Three doublings are left out at most, none of which brings more than its share and what noise may hide of it; and more
                // where calls are long.
                let patience = ((MIDDLING + seconds(rows)) / (MIDDLING + seconds(last))).powf(MORE_OF_LONG.log2());
                let least = rate(rows) / (1.09_f64.powi(3) * patience.max(1.0));
                prop_assert!(rate(last) > least, "{last} rows: {} and not {least} as with {rows}", rate(last));
            }
        }
    }
}
