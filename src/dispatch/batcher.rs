//! Decides which canvases share the next step. A pure function, so that fairness can be proved without a device.

use super::ports::BatchKey;
use crate::domain::GenerationRequest;

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
}

/// What the choice may know of a canvas on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Only canvases with the same key can share a step.
    pub(super) key: BatchKey,
    /// Rows of the UNet call that it takes.
    pub(super) rows: usize,
    /// Pixels of its picture: what each row weighs.
    pub(super) pixels: usize,
    /// The number of the step that last moved it, or that had just been done when it came.
    pub(super) last_step: u64,
}

/// Chooses the canvases of the next step: their places in `candidates` (which stand oldest first), in rising order.
///
/// The canvas that has waited longest, the oldest of equals, always goes; those of its key that fit beside it go with it, in the same
/// order. So keys take turns, and of `n` canvases each moves at least once in any `n` steps, whatever comes meanwhile: a newcomer
/// counts as moved when it came. A canvas that is beyond the limits by itself goes alone.
pub(super) fn next_batch(candidates: &[Candidate], limits: StepLimits) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    // The sort is stable: among those that have waited equally long the oldest stays first.
    order.sort_by_key(|&place| candidates[place].last_step);
    let Some(&first) = order.first() else { return Vec::new() };
    let (mut rows, mut pixels) = (0, 0);
    let mut chosen = order;
    chosen.retain(|&place| {
        let candidate = &candidates[place];
        let (with_rows, with_pixels) = (rows + candidate.rows, pixels + candidate.rows * candidate.pixels);
        let fits = with_rows <= limits.rows && with_pixels <= limits.pixels;
        let goes = place == first || (fits && candidate.key == candidates[first].key);
        if goes {
            (rows, pixels) = (with_rows, with_pixels);
        }
        goes
    });
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::events::tests::job, *};

    fn canvas(key: &str, rows: usize, last_step: u64) -> Candidate {
        Candidate { key: BatchKey::new(key), rows, pixels: 1, last_step }
    }

    /// Limits under which the pixels of the tests' canvases do not count.
    fn rows(rows: usize) -> StepLimits {
        StepLimits { rows, pixels: usize::MAX }
    }

    #[test]
    fn an_empty_device_has_nothing_to_step() {
        assert!(next_batch(&[], rows(8)).is_empty());
    }

    #[test]
    fn canvases_of_one_key_share_a_step() {
        assert_eq!(next_batch(&[canvas("a", 2, 0), canvas("a", 1, 4), canvas("a", 2, 3)], rows(8)), [0, 1, 2]);
    }

    #[test]
    fn canvases_of_other_keys_wait_for_their_turn() {
        let device = [canvas("a", 2, 1), canvas("b", 2, 0), canvas("a", 2, 1), canvas("b", 2, 1)];
        assert_eq!(next_batch(&device, rows(8)), [1, 3]);
    }

    #[test]
    fn the_oldest_goes_first_among_those_that_waited_equally() {
        assert_eq!(next_batch(&[canvas("a", 2, 5), canvas("a", 2, 5), canvas("a", 2, 5)], rows(4)), [0, 1]);
    }

    #[test]
    fn a_small_canvas_fills_the_gap_that_a_large_one_leaves() {
        assert_eq!(next_batch(&[canvas("a", 2, 1), canvas("a", 3, 2), canvas("a", 1, 3)], rows(3)), [0, 2]);
    }

    #[test]
    fn a_canvas_larger_than_the_limit_goes_alone() {
        assert_eq!(next_batch(&[canvas("a", 3, 0), canvas("a", 1, 0)], rows(2)), [0]);
    }

    #[test]
    fn large_canvases_share_a_step_only_as_far_as_their_pixels_allow() {
        let device: Vec<Candidate> = (0..4).map(|_| Candidate { pixels: 1 << 20, ..canvas("a", 2, 0) }).collect();
        assert_eq!(next_batch(&device, StepLimits { rows: 32, pixels: 6 << 20 }), [0, 1, 2]);
        assert_eq!(next_batch(&device, StepLimits { rows: 32, pixels: 1 }), [0], "one always goes");
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
        let canvas = (0..4_u8, 1..4_usize, 1..9_usize, 0..20_u64)
            .prop_map(|(key, rows, pixels, last)| Candidate { pixels, ..canvas(&key.to_string(), rows, last) });
        prop::collection::vec(canvas, 1..24)
    }

    proptest! {
        #[test]
        fn a_batch_is_of_one_key_within_the_limit_and_as_full_as_it_can_be(
            device in devices(),
            max_rows in 2..12_usize,
            max_pixels in 2..60_usize,
        ) {
            let chosen = next_batch(&device, StepLimits { rows: max_rows, pixels: max_pixels });
            let key = &device[chosen[0]].key;
            let rows: usize = chosen.iter().map(|&place| device[place].rows).sum();
            let pixels: usize = chosen.iter().map(|&place| device[place].rows * device[place].pixels).sum();
            prop_assert!(chosen.iter().all(|&place| &device[place].key == key));
            prop_assert!((rows <= max_rows && pixels <= max_pixels) || chosen.len() == 1);
            let left_out = device.iter().enumerate().filter(|(place, other)| !chosen.contains(place) && &other.key == key);
            for (_, other) in left_out {
                prop_assert!(rows + other.rows > max_rows || pixels + other.rows * other.pixels > max_pixels);
            }
        }

        #[test]
        fn nobody_waits_longer_than_there_are_canvases(
            mut device in devices(),
            newcomers in prop::collection::vec(0..4_u8, 60),
            max_rows in 2..12_usize,
        ) {
            // Every step one canvas is replaced by a newcomer of some key, the way that one-step jobs under load would do it.
            device.iter_mut().for_each(|canvas| canvas.last_step = 0);
            for (step, key) in (1..).zip(newcomers) {
                let chosen = next_batch(&device, rows(max_rows));
                chosen.iter().for_each(|&place| device[place].last_step = step);
                device.remove(chosen[0]);
                device.push(canvas(&key.to_string(), 1, step));
                for canvas in &device {
                    prop_assert!(step - canvas.last_step < device.len() as u64, "waited {} steps", step - canvas.last_step);
                }
            }
        }
    }
}
