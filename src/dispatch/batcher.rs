//! Decides which canvases share the next step. A pure function, so that fairness can be proved without a device.

use super::ports::BatchKey;

/// What the choice may know of a canvas on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Only canvases with the same key can share a step.
    pub(super) key: BatchKey,
    /// Rows of the UNet call that it takes.
    pub(super) rows: usize,
    /// The number of the step that last moved it, or that had just been done when it came.
    pub(super) last_step: u64,
}

/// Chooses the canvases of the next step: their places in `candidates` (which stand oldest first), in rising order.
///
/// The canvas that has waited longest, the oldest of equals, always goes; those of its key that fit beside it go with it, in the same
/// order. So keys take turns, and of `n` canvases each moves at least once in any `n` steps, whatever comes meanwhile: a newcomer
/// counts as moved when it came. A canvas with more than `max_rows` rows goes alone.
pub(super) fn next_batch(candidates: &[Candidate], max_rows: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    // The sort is stable: among those that have waited equally long the oldest stays first.
    order.sort_by_key(|&place| candidates[place].last_step);
    let Some(&first) = order.first() else { return Vec::new() };
    let mut rows = 0;
    let mut chosen = order;
    chosen.retain(|&place| {
        let candidate = &candidates[place];
        let goes = place == first || (candidate.key == candidates[first].key && rows + candidate.rows <= max_rows);
        rows += if goes { candidate.rows } else { 0 };
        goes
    });
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canvas(key: &str, rows: usize, last_step: u64) -> Candidate {
        Candidate { key: BatchKey::new(key), rows, last_step }
    }

    #[test]
    fn an_empty_device_has_nothing_to_step() {
        assert!(next_batch(&[], 8).is_empty());
    }

    #[test]
    fn canvases_of_one_key_share_a_step() {
        assert_eq!(next_batch(&[canvas("a", 2, 0), canvas("a", 1, 4), canvas("a", 2, 3)], 8), [0, 1, 2]);
    }

    #[test]
    fn canvases_of_other_keys_wait_for_their_turn() {
        let device = [canvas("a", 2, 1), canvas("b", 2, 0), canvas("a", 2, 1), canvas("b", 2, 1)];
        assert_eq!(next_batch(&device, 8), [1, 3]);
    }

    #[test]
    fn the_oldest_goes_first_among_those_that_waited_equally() {
        assert_eq!(next_batch(&[canvas("a", 2, 5), canvas("a", 2, 5), canvas("a", 2, 5)], 4), [0, 1]);
    }

    #[test]
    fn a_small_canvas_fills_the_gap_that_a_large_one_leaves() {
        assert_eq!(next_batch(&[canvas("a", 2, 1), canvas("a", 3, 2), canvas("a", 1, 3)], 3), [0, 2]);
    }

    #[test]
    fn a_canvas_larger_than_the_limit_goes_alone() {
        assert_eq!(next_batch(&[canvas("a", 3, 0), canvas("a", 1, 0)], 2), [0]);
    }

    fn devices() -> impl Strategy<Value = Vec<Candidate>> {
        let canvas = (0..4_u8, 1..4_usize, 0..20_u64).prop_map(|(key, rows, last)| canvas(&key.to_string(), rows, last));
        prop::collection::vec(canvas, 1..24)
    }

    proptest! {
        #[test]
        fn a_batch_is_of_one_key_within_the_limit_and_as_full_as_it_can_be(device in devices(), max_rows in 2..12_usize) {
            let chosen = next_batch(&device, max_rows);
            let key = &device[chosen[0]].key;
            let rows: usize = chosen.iter().map(|&place| device[place].rows).sum();
            prop_assert!(chosen.iter().all(|&place| &device[place].key == key));
            prop_assert!(rows <= max_rows || chosen.len() == 1);
            let left_out = device.iter().enumerate().filter(|(place, other)| !chosen.contains(place) && &other.key == key);
            for (_, other) in left_out {
                prop_assert!(rows + other.rows > max_rows);
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
                let chosen = next_batch(&device, max_rows);
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
