//! How canvases that cannot share a UNet call share the device's time: deficit round robin (Shreedhar and Varghese, 1995), with the
//! deficits in measured seconds and charged when a call is done, since what it takes is known only then; on a device that is not waited for
//! when it is told, by what such calls take.

use std::{collections::HashMap, hash::Hash};

use super::ports::BatchKey;

/// A batch key that has canvases to move.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Turn<K = BatchKey> {
    /// The key.
    pub(super) key: K,
    /// The calls that it takes to move each of its canvases once: what it may have of the device's time, beside the others'. So keys
    /// whose canvases all fit into one call share the time equally, however large their pictures are; and where a call moves one
    /// canvas, each canvas has an equal share, whichever key it is of.
    pub(super) weight: f64,
}

/// The seconds that each key is behind its share; less than nothing when it is ahead. Their sum is 0.
#[derive(Debug, Clone)]
pub(super) struct Shares<K = BatchKey>(HashMap<K, f64>);

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Shares<K> {
    /// How far a key is behind. One that has just come is even.
    pub(super) fn behind(&self, key: &K) -> f64 {
        self.0.get(key).copied().unwrap_or(0.0)
    }

    /// A call for `served` took so long while these keys had canvases to move. What a key that has none any more was owed is forgotten:
    /// nobody saves up time.
    pub(super) fn settle(&mut self, turns: &[Turn<K>], served: &K, seconds: f64) {
        let total: f64 = turns.iter().map(|turn| turn.weight).sum();
        let due = |turn: &Turn<K>| {
            let taken = if turn.key == *served { seconds } else { 0.0 };
            (turn.key.clone(), self.behind(&turn.key) + seconds * turn.weight / total - taken)
        };
        let balances: Vec<(K, f64)> = turns.iter().map(due).collect();
        // Summed in the order of the turns: rounding must not decide between equals as it likes.
        let mean = balances.iter().map(|(_, balance)| balance).sum::<f64>() / balances.len().max(1) as f64;
        self.0 = balances.into_iter().map(|(key, balance)| (key, balance - mean)).collect();
    }

    /// The same by what each key stands for; those of one that several stand for together.
    pub(super) fn by<L: Clone + Eq + Hash>(&self, names: &HashMap<K, L>) -> Shares<L> {
        let mut balances = HashMap::new();
        for (key, behind) in &self.0 {
            if let Some(name) = names.get(key) {
                *balances.entry(name.clone()).or_insert(0.0) += behind;
            }
        }
        Shares(balances)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turn(key: usize, weight: f64) -> Turn {
        Turn { key: BatchKey::new(&key.to_string()), weight }
    }

    /// The seconds that each key has had when the one that is furthest behind always goes.
    fn served(shares: &mut Shares, turns: &[Turn], costs: &[f64], calls: usize) -> Vec<f64> {
        let mut seconds = vec![0.0; turns.len()];
        for _ in 0..calls {
            let behind = |place: &usize| shares.behind(&turns[*place].key);
            let next = (0..turns.len()).max_by(|one, other| behind(one).total_cmp(&behind(other))).unwrap();
            seconds[next] += costs[next];
            shares.settle(turns, &turns[next].key, costs[next]);
        }
        seconds
    }

    #[test]
    fn who_has_gone_and_come_again_has_nothing_saved_up() {
        let mut shares = Shares::default();
        let both = [turn(0, 1.0), turn(1, 1.0)];
        shares.settle(&both, &both[0].key, 100.0);
        assert_eq!((shares.behind(&both[0].key), shares.behind(&both[1].key)), (-50.0, 50.0));
        shares.settle(&both[..1], &both[0].key, 1.0);
        assert_eq!((shares.behind(&both[0].key), shares.behind(&both[1].key)), (0.0, 0.0));
    }

    proptest! {
        #[test]
        fn nobody_is_ahead_of_its_share_by_more_than_one_call_or_behind_by_more_than_one_of_each_other(
            keys in prop::collection::vec((0.01..5.0_f64, 1_u8..6), 1..6),
            calls in 1..400_usize,
        ) {
            let (costs, turns): (Vec<f64>, Vec<Turn>) =
                keys.iter().enumerate().map(|(key, &(cost, weight))| (cost, turn(key, f64::from(weight)))).unzip();
            let seconds = served(&mut Shares::default(), &turns, &costs, calls);
            let (all, weights) = (seconds.iter().sum::<f64>(), turns.iter().map(|turn| turn.weight).sum::<f64>());
            let longest = costs.iter().copied().fold(0.0, f64::max);
            for (had, turn) in seconds.iter().zip(&turns) {
                let off = had - all * turn.weight / weights;
                let most_behind = longest * (turns.len() - 1) as f64;
                prop_assert!((-most_behind - 1e-6..=longest + 1e-6).contains(&off), "{off} s with calls of at most {longest} s");
            }
        }
    }
}
