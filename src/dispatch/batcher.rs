//! Decides which canvases share the next step. A pure function, so that fairness can be proved without a device.

use super::{
    curve::Curve,
    ports::BatchKey,
    shares::{Shares, Turn},
    step_times::{Kind, StepTimes},
};
use crate::domain::GenerationRequest;

/// A canvas may be overtaken by those that came later by at most so many times the seconds that its job still needs.
const PATIENCE: f64 = 8.0;

/// How much one UNet call may take on. One canvas always goes, however large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// The most rows.
    pub rows: usize,
    /// The most pixels of all rows together: rows of large pictures cost more time and memory than rows of small ones.
    pub pixels: usize,
}

impl StepLimits {
    /// How many pictures of a request can share a step; at least 1.
    pub fn pictures_of(&self, request: &GenerationRequest) -> usize {
        let rows = request.max_rows();
        let pixels = rows * request.width as usize * request.height as usize;
        (self.rows / rows).min(self.pixels / pixels.max(1)).max(1)
    }

    /// Those that one call can take, in this order, each with the rows of all up to it. `size` tells the rows and the pixels of one. The
    /// first always goes; one that does not fit is left out, and does not keep smaller ones from going.
    pub(super) fn fill<T: Copy>(self, order: &[T], size: impl Fn(T) -> (usize, usize)) -> (Vec<T>, Vec<usize>) {
        let (mut sum, mut weight) = (0, 0);
        let fits = |&one: &T| {
            let (rows, pixels) = size(one);
            let fits = sum == 0 || (sum + rows <= self.rows && weight + rows * pixels <= self.pixels);
            fits.then(|| {
                (sum, weight) = (sum + rows, weight + rows * pixels);
                (one, sum)
            })
        };
        order.iter().filter_map(fits).unzip()
    }
}

/// What the choice may know of a canvas on the device.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate {
    /// Only canvases with the same key can share a step.
    pub(super) key: BatchKey,
    /// What its calls depend on; but for the interval of the whole ones, the same for all of one key.
    pub(super) kind: Kind,
    /// Whether its next call runs the UNet's last layer only; the same for all of one key.
    pub(super) is_shallow: bool,
    /// Rows of the UNet call that it takes.
    pub(super) rows: usize,
    /// As [`rank`] has it.
    pub(super) rank: f64,
}

/// Whose turn it is among canvases of one key: the least goes first. `came` is when the job came, in seconds, and `left` the seconds that it
/// still needs.
///
/// The shortest remaining first, since that makes the mean wait least (Schrage, 1968), with ageing: of two canvases the later one
/// goes first only if it came less than [`PATIENCE`] times later than the other needs more. What is left of a canvas that waits does not
/// change, so nobody is overtaken for ever.
pub(super) fn rank(came: f64, left: f64) -> f64 {
    came / PATIENCE + left
}

/// The canvases of a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Batch {
    /// Their places among the candidates, in rising order.
    pub(super) places: Vec<usize>,
    /// Their key.
    pub(super) key: BatchKey,
    /// All keys that have canvases, for [`Shares::settle`] when it is known, or expected, what the step takes.
    pub(super) turns: Vec<Turn>,
}

/// Chooses the canvases of the next step; none where there are no candidates, which stand oldest first.
///
/// The key goes that is furthest behind its share of the device's time, of equals that of the oldest canvas. Of its canvases those go
/// whose turn it is by their [`rank`], the oldest first of equals, as many as are worth it ([`Curve::next`]) and fit; one always goes,
/// however large it is.
pub(super) fn next_batch(candidates: &[Candidate], limits: StepLimits, (times, shares): (&StepTimes, &Shares)) -> Option<Batch> {
    let mut keys: Vec<&BatchKey> = Vec::new();
    for candidate in candidates {
        if !keys.contains(&&candidate.key) {
            keys.push(&candidate.key);
        }
    }
    let batches: Vec<(&BatchKey, Vec<usize>)> = keys.iter().map(|&key| (key, batch_of(key, candidates, limits, times))).collect();
    let turns = batches.iter().map(|(key, batch)| {
        let canvases = candidates.iter().filter(|candidate| candidate.key == **key).count();
        Turn { key: (*key).clone(), weight: canvases as f64 / batch.len().max(1) as f64 }
    });
    let turns = turns.collect();
    // The last of equals would be taken, and the oldest is meant.
    let furthest = batches.into_iter().rev().max_by(|(one, _), (other, _)| shares.behind(one).total_cmp(&shares.behind(other)));
    furthest.map(|(key, mut places)| {
        places.sort_unstable();
        Batch { places, key: key.clone(), turns }
    })
}

/// The canvases of a key that would go now.
fn batch_of(key: &BatchKey, candidates: &[Candidate], limits: StepLimits, times: &StepTimes) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).filter(|&place| candidates[place].key == *key).collect();
    // The sort is stable: of equals the oldest stays first.
    order.sort_by(|&one, &other| candidates[one].rank.total_cmp(&candidates[other].rank));
    let size = |place: usize| (candidates[place].rows, candidates[place].kind.pixels);
    let (mut fitting, rows) = limits.fill(&order, size);
    let unknown = Curve::default();
    let first = order.first().map(|&first| &candidates[first]);
    let curve = first.and_then(|first| times.calls(&first.kind, first.is_shallow)).unwrap_or(&unknown);
    fitting.truncate(curve.next(&rows) + 1);
    fitting
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::events::tests::job, *};

    fn canvas(key: &str, rows: usize, rank: f64) -> Candidate {
        Candidate {
            key: BatchKey::new(key),
            kind: Kind { model: key.into(), pixels: 1, cache_interval: 1, fp8_linears: false },
            is_shallow: false,
            rows,
            rank,
        }
    }

    /// Limits under which the pixels of the tests' canvases do not count.
    fn rows(rows: usize) -> StepLimits {
        StepLimits { rows, pixels: usize::MAX }
    }

    /// What calls take that were measured up to so many rows: of every key of the tests.
    fn measured(device: &[Candidate], most: usize, seconds: impl Fn(usize) -> f64) -> StepTimes {
        let mut times = StepTimes::default();
        for Candidate { kind, .. } in device {
            (1..=most).chain(1..=most).for_each(|rows| times.of_mut(kind).calls.note(rows, seconds(rows)));
        }
        times
    }

    /// On a machine where rows pay.
    fn places(device: &[Candidate], limits: StepLimits) -> Vec<usize> {
        let times = measured(device, 64, |rows| 1.0 + 0.001 * rows as f64);
        next_batch(device, limits, (&times, &Shares::default())).map(|batch| batch.places).unwrap_or_default()
    }

    #[test]
    fn an_empty_device_has_nothing_to_step() {
        assert!(places(&[], rows(8)).is_empty());
    }

    #[test]
    fn canvases_of_one_key_share_a_step_where_rows_pay() {
        let device = [canvas("a", 2, 0.0), canvas("a", 1, 4.0), canvas("a", 2, 3.0)];
        assert_eq!(places(&device, rows(8)), [0, 1, 2]);
    }

    #[test]
    fn where_rows_bring_nothing_the_shortest_goes_alone() {
        let device = [canvas("a", 2, 5.0), canvas("a", 2, 3.0), canvas("a", 2, 4.0)];
        let times = measured(&device, 8, |rows| rows as f64);
        let batch = next_batch(&device, rows(8), (&times, &Shares::default())).unwrap();
        assert_eq!((batch.places, batch.turns), (vec![1], vec![Turn { key: BatchKey::new("a"), weight: 3.0 }]));
    }

    #[test]
    fn the_first_call_of_a_kind_that_was_never_measured_moves_one_canvas() {
        let device = [canvas("a", 2, 5.0), canvas("a", 2, 3.0)];
        let batch = next_batch(&device, rows(8), (&StepTimes::default(), &Shares::default())).unwrap();
        assert_eq!(batch.places, [1]);
    }

    #[test]
    fn the_key_goes_that_is_furthest_behind_and_of_equals_that_of_the_oldest_canvas() {
        let device = [canvas("a", 2, 1.0), canvas("b", 2, 0.0), canvas("a", 2, 1.0), canvas("b", 2, 1.0)];
        assert_eq!(places(&device, rows(8)), [0, 2]);
        let mut shares = Shares::default();
        let batch = next_batch(&device, rows(8), (&StepTimes::default(), &shares)).unwrap();
        shares.settle(&batch.turns, &batch.key, 1.0);
        let times = measured(&device, 8, |rows| 1.0 + 0.001 * rows as f64);
        assert_eq!(next_batch(&device, rows(8), (&times, &shares)).unwrap().places, [1, 3]);
    }

    #[test]
    fn the_oldest_goes_first_of_equals() {
        assert_eq!(places(&[canvas("a", 2, 5.0), canvas("a", 2, 5.0), canvas("a", 2, 5.0)], rows(4)), [0, 1]);
    }

    #[test]
    fn a_small_canvas_fills_the_gap_that_a_large_one_leaves() {
        assert_eq!(places(&[canvas("a", 2, 1.0), canvas("a", 3, 2.0), canvas("a", 1, 3.0)], rows(3)), [0, 2]);
    }

    #[test]
    fn a_canvas_larger_than_the_limit_goes_alone() {
        assert_eq!(places(&[canvas("a", 3, 0.0), canvas("a", 1, 0.0)], rows(2)), [0]);
    }

    #[test]
    fn large_canvases_share_a_step_only_as_far_as_their_pixels_allow() {
        let large = |_| Candidate {
            kind: Kind { model: "a".into(), pixels: 1 << 20, cache_interval: 1, fp8_linears: false },
            ..canvas("a", 2, 0.0)
        };
        let device: Vec<Candidate> = (0..4).map(large).collect();
        assert_eq!(places(&device, StepLimits { rows: 32, pixels: 6 << 20 }), [0, 1, 2]);
        assert_eq!(places(&device, StepLimits { rows: 32, pixels: 1 }), [0], "one always goes");
    }

    #[test]
    fn as_many_pictures_of_a_request_share_a_step_as_its_rows_and_pixels_allow() {
        let request = |guidance_scale: f64| GenerationRequest { guidance_scale, width: 2048, height: 1024, ..job(0).request };
        let limits = StepLimits { rows: 32, pixels: 16 << 20 };
        assert_eq!((limits.pictures_of(&request(5.0)), limits.pictures_of(&request(1.0))), (4, 8));
        assert_eq!(StepLimits { rows: 3, ..limits }.pictures_of(&request(5.0)), 1);
        assert_eq!(StepLimits { pixels: 1, ..limits }.pictures_of(&request(1.0)), 1);
    }

    fn devices() -> impl Strategy<Value = Vec<Candidate>> {
        let canvas = (0..4_u8, 1..4_usize, 1..9_usize, 0.0..20.0_f64).prop_map(|(key, rows, pixels, rank)| {
            let (key, kind) =
                (format!("{key}/{pixels}"), Kind { model: "a".into(), pixels, cache_interval: 1, fp8_linears: false });
            Candidate { kind, ..canvas(&key, rows, rank) }
        });
        prop::collection::vec(canvas, 1..24)
    }

    /// A canvas of a job of one picture, on a device whose calls move one canvas in a second.
    #[derive(Debug, Clone)]
    struct Lone {
        came: f64,
        calls: u32,
    }

    proptest! {
        #[test]
        fn a_batch_is_of_one_key_within_the_limits_and_where_rows_pay_as_full_as_it_can_be(
            device in devices(),
            max_rows in 2..12_usize,
            max_pixels in 2..60_usize,
        ) {
            let chosen = places(&device, StepLimits { rows: max_rows, pixels: max_pixels });
            let key = &device[chosen[0]].key;
            let rows: usize = chosen.iter().map(|&place| device[place].rows).sum();
            let pixels: usize = chosen.iter().map(|&place| device[place].rows * device[place].kind.pixels).sum();
            prop_assert!(chosen.iter().all(|&place| &device[place].key == key));
            prop_assert!((rows <= max_rows && pixels <= max_pixels) || chosen.len() == 1);
            let left_out = device.iter().enumerate().filter(|(place, other)| !chosen.contains(place) && &other.key == key);
            for (_, other) in left_out {
                prop_assert!(rows + other.rows > max_rows || pixels + other.rows * other.kind.pixels > max_pixels);
            }
        }

        #[test]
        fn nobody_is_overtaken_by_one_that_came_later_than_its_patience_and_nobody_starves(
            calls in prop::collection::vec(1..20_u32, 1..4),
            newcomers in prop::collection::vec(1..4_u32, 40),
        ) {
            // A newcomer comes every second for as long as it takes: the device never has time for all.
            let mut device: Vec<Lone> = calls.iter().map(|&calls| Lone { came: 0.0, calls }).collect();
            let mut newcomers = newcomers.into_iter().cycle();
            let times = measured(&[canvas("a", 2, 0.0)], 8, |rows| rows as f64 / 2.0);
            let (mut second, mut old) = (0.0, device.len());
            while old > 0 {
                let rank = |lone: &Lone| rank(lone.came, f64::from(lone.calls));
                let candidates: Vec<Candidate> = device.iter().map(|lone| canvas("a", 2, rank(lone))).collect();
                let places = next_batch(&candidates, rows(8), (&times, &Shares::default())).unwrap().places;
                prop_assert_eq!(places.len(), 1);
                let next = device[places[0]].clone();
                for other in &device {
                    prop_assert!(next.came <= other.came + PATIENCE * f64::from(other.calls), "{next:?} before {other:?}");
                }
                device[places[0]].calls -= 1;
                if device[places[0]].calls == 0 {
                    device.remove(places[0]);
                    old -= usize::from(places[0] < old);
                }
                second += 1.0;
                device.push(Lone { came: second, calls: newcomers.next().unwrap() });
            }
            // Whoever comes after the patience of the longest goes after it: all that came before are done by then.
            let longest = f64::from(*calls.iter().max().unwrap());
            prop_assert!(second <= 3.0 * PATIENCE * longest + f64::from(calls.iter().sum::<u32>()), "{second} s");
        }
    }
}
