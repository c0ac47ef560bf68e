//! Whose turn it is among jobs of different models. A pure function, so that fairness can be proved without a device or a store.

use std::{collections::BTreeMap, time::Duration};

/// What the claims know about the models of a server. A model that is on the device has an advantage, and a limited one, so that jobs
/// that come in turns do not load a model each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelTurns {
    /// How much earlier than it came a job counts whose model is here, and how long a job may wait for the models that are.
    pub stay: Duration,
    /// How models stand; one that is not named is away and takes no memory.
    pub models: BTreeMap<String, ModelStanding>,
    /// The most bytes of weights on the device, if there is such a bound.
    pub memory: Option<u64>,
}

/// How a model stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ModelStanding {
    /// Of its weights.
    pub bytes: u64,
    /// On the device or on its way to it.
    pub is_here: bool,
    /// There is work for it that has been claimed, or was a moment ago.
    pub is_busy: bool,
    /// It must leave for a job that waits on the device: nothing of it is claimed.
    pub leaves: bool,
}

/// How a job's models stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// All are on the device or on their way to it.
    Here,
    /// They could come at once.
    Free,
    /// They can only come when the work for other models is done.
    Displaces,
    /// Some of them must leave.
    Leaves,
}

/// The first of the queued jobs of the same models that its owner may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueHead {
    /// Its place in the order of arrivals.
    pub seq: i64,
    /// Its models, all of which it needs at once.
    pub models: Vec<String>,
    /// When it is its turn, in milliseconds: its arrival, less a bonus for its priority.
    pub turn_ms: i64,
    /// When it came, in milliseconds.
    pub arrived_ms: i64,
    /// It must have the device for itself.
    pub suspect: bool,
}

impl ModelTurns {
    /// Chooses among the heads of all sets of models that have queued jobs.
    ///
    /// A job whose models are here goes before one of others that came up to `stay` earlier, and no more than that. While nobody
    /// else waits whom it could overtake, a job that would make a busy model leave is held back, for `stay` at most: more work for the
    /// models that are here may come. So of jobs of one priority none goes before another that came more than `stay` before it, and a
    /// model that has work stays for about `stay`.
    pub fn choose<'a>(&self, heads: &'a [QueueHead], now_ms: i64) -> Option<&'a QueueHead> {
        let mut order: Vec<&QueueHead> = heads.iter().filter(|head| self.stands(head) != Turn::Leaves).collect();
        order.sort_by_key(|head| (self.rank_ms(head), head.seq));
        let is_due = |place: usize, head: &QueueHead| {
            self.stands(head) != Turn::Displaces
                || now_ms >= head.arrived_ms.saturating_add(self.stay_ms())
                || order[place + 1..].iter().any(|other| self.stands(other) == Turn::Here)
        };
        order.iter().enumerate().find(|(place, head)| is_due(*place, head)).map(|(_, head)| *head)
    }

    fn stands(&self, head: &QueueHead) -> Turn {
        let own = || head.models.iter().map(|model| self.models.get(model).copied().unwrap_or_default());
        if own().any(|model| model.leaves) {
            return Turn::Leaves;
        }
        if own().all(|model| model.is_here) {
            return Turn::Here;
        }
        let others =
            || self.models.iter().filter(|(name, model)| model.is_busy && !head.models.contains(name)).map(|(_, model)| model);
        let bytes = own().chain(others().copied()).fold(0, |sum: u64, model| sum.saturating_add(model.bytes));
        let is_crowded = others().next().is_some() && self.memory.is_some_and(|memory| bytes > memory);
        // What comes while a job waits for room would wait behind it.
        if is_crowded || self.models.values().any(|model| model.leaves) { Turn::Displaces } else { Turn::Free }
    }

    fn rank_ms(&self, head: &QueueHead) -> i64 {
        let bonus = if self.stands(head) == Turn::Here { self.stay_ms() } else { 0 };
        head.turn_ms.saturating_sub(bonus)
    }

    fn stay_ms(&self) -> i64 {
        i64::try_from(self.stay.as_millis()).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAY_MS: i64 = 30_000;

    const HERE: ModelStanding = ModelStanding { bytes: 1, is_here: true, is_busy: true, leaves: false };
    const AWAY: ModelStanding = ModelStanding { bytes: 1, is_here: false, is_busy: false, leaves: false };
    const LEAVES: ModelStanding = ModelStanding { leaves: true, ..HERE };

    /// A device that has room for one model.
    fn turns(models: &[(&str, ModelStanding)]) -> ModelTurns {
        let models = models.iter().map(|&(model, standing)| (model.to_owned(), standing)).collect();
        ModelTurns { stay: Duration::from_millis(STAY_MS as u64), models, memory: Some(1) }
    }

    fn head(model: &str, arrived_ms: i64) -> QueueHead {
        QueueHead { seq: arrived_ms, models: vec![model.to_owned()], turn_ms: arrived_ms, arrived_ms, suspect: false }
    }

    fn chosen(turns: &ModelTurns, heads: &[QueueHead], now_ms: i64) -> Option<String> {
        turns.choose(heads, now_ms).map(|head| head.models[0].clone())
    }

    #[test]
    fn without_any_word_about_models_the_first_turn_goes_first() {
        let heads = [head("b", 7), head("a", 9)];
        assert_eq!(chosen(&ModelTurns::default(), &heads, 10), Some("b".to_owned()));
        assert_eq!(chosen(&ModelTurns::default(), &[], 10), None);
    }

    #[test]
    fn a_model_that_is_here_goes_before_another_that_came_a_little_earlier_and_no_more() {
        let turns = turns(&[("a", HERE)]);
        assert_eq!(chosen(&turns, &[head("a", STAY_MS - 1), head("b", 0)], STAY_MS), Some("a".to_owned()));
        assert_eq!(chosen(&turns, &[head("a", STAY_MS + 1), head("b", 0)], STAY_MS + 1), Some("b".to_owned()));
    }

    #[test]
    fn a_job_that_would_make_a_busy_model_leave_waits_for_so_long_and_no_longer() {
        let turns = turns(&[("a", HERE), ("b", AWAY)]);
        assert_eq!(chosen(&turns, &[head("b", 0)], STAY_MS - 1), None);
        assert_eq!(chosen(&turns, &[head("b", 0), head("c", 5)], STAY_MS - 1), Some("c".to_owned()), "c disturbs nobody");
        assert_eq!(chosen(&turns, &[head("b", 0)], STAY_MS), Some("b".to_owned()));
    }

    #[test]
    fn a_high_priority_makes_a_busy_model_leave_at_once_when_it_would_be_overtaken_else() {
        let turns = turns(&[("a", HERE), ("b", AWAY)]);
        let urgent = QueueHead { turn_ms: -10 * STAY_MS, ..head("b", 100) };
        assert_eq!(chosen(&turns, &[head("a", 50), urgent], 100), Some("b".to_owned()));
    }

    #[test]
    fn nothing_is_claimed_of_a_model_that_must_leave() {
        let turns = turns(&[("a", LEAVES), ("b", HERE)]);
        assert_eq!(chosen(&turns, &[head("a", 0)], 10 * STAY_MS), None);
        assert_eq!(chosen(&turns, &[head("a", 0), head("b", 9)], 10), Some("b".to_owned()));
    }

    #[test]
    fn the_models_of_a_job_come_and_wait_together() {
        let turns = |memory| ModelTurns { memory: Some(memory), ..turns(&[("a", HERE), ("b", HERE), ("c", AWAY), ("d", AWAY)]) };
        let pair = |models: [&str; 2]| QueueHead { models: models.map(str::to_owned).to_vec(), ..head("", 0) };
        let due = |memory, models, now_ms| turns(memory).choose(&[pair(models)], now_ms).is_some();
        assert!(due(2, ["a", "b"], 1));
        assert!(!due(2, ["a", "c"], STAY_MS - 1) && due(2, ["a", "c"], STAY_MS), "its refiner would make a busy model leave");
        assert!(due(3, ["a", "c"], 1) && !due(3, ["c", "d"], 1), "each could come, and not both");
        let (away, here) = (pair(["a", "c"]), QueueHead { turn_ms: 1, arrived_ms: 1, seq: 1, ..pair(["a", "b"]) });
        assert_eq!(turns(3).choose(&[away, here.clone()], 1), Some(&here), "what is here goes before what could come");
    }

    #[test]
    fn an_idle_model_leaves_for_any_job_and_a_large_one_has_the_device_for_itself() {
        let idle = turns(&[("a", ModelStanding { is_busy: false, ..HERE }), ("b", ModelStanding { bytes: 9, ..AWAY })]);
        assert!(idle.choose(&[head("b", 0)], 1).is_some());
    }

    #[test]
    fn nobody_comes_while_a_job_waits_for_room() {
        let turns = ModelTurns { memory: Some(9), ..turns(&[("a", LEAVES), ("b", HERE), ("c", AWAY)]) };
        assert_eq!(chosen(&turns, &[head("c", 0)], STAY_MS - 1), None);
        assert_eq!(chosen(&turns, &[head("c", 0)], STAY_MS), Some("c".to_owned()));
    }

    /// A device that holds one of the models and paints one job at a time. Each job says how long after the one before it comes, of
    /// which model it is, and how long it takes. Answers every claim with those that waited then, and how often models were loaded.
    fn serve(jobs: &[(i64, u8, i64)]) -> (Vec<(QueueHead, Vec<QueueHead>)>, u32) {
        let mut coming: Vec<(QueueHead, i64)> = Vec::new();
        for &(gap, model, takes) in jobs {
            let arrived = coming.last().map_or(0, |(last, _)| last.arrived_ms) + gap;
            coming.push((QueueHead { seq: coming.len() as i64, ..head(&model.to_string(), arrived) }, takes));
        }
        let (mut now, mut here, mut loads, mut claims) = (0, String::new(), 0, Vec::new());
        while !coming.is_empty() {
            let waiting: Vec<QueueHead> =
                coming.iter().map(|(head, _)| head).filter(|head| head.arrived_ms <= now).cloned().collect();
            let heads = (0..4_u8).filter_map(|model| waiting.iter().find(|head| head.models[0] == model.to_string()).cloned());
            let turns = turns(&[(&here, HERE)]);
            let Some(next) = turns.choose(&heads.collect::<Vec<_>>(), now).cloned() else {
                now = coming[0].0.arrived_ms;
                continue;
            };
            let place = coming.iter().position(|(head, _)| head.seq == next.seq).unwrap();
            loads += u32::from(here != next.models[0]);
            here.clone_from(&next.models[0]);
            now += coming.remove(place).1;
            claims.push((next, waiting));
        }
        (claims, loads)
    }

    proptest! {
        #[test]
        fn nobody_is_overtaken_by_a_job_that_came_more_than_a_stay_later(
            jobs in prop::collection::vec((0..8_000_i64, 0..4_u8, 1..20_000_i64), 1..120),
        ) {
            let (claims, _) = serve(&jobs);
            prop_assert_eq!(claims.len(), jobs.len());
            for (next, waiting) in claims {
                let first = waiting.iter().map(|head| head.arrived_ms).min().unwrap();
                prop_assert!(next.arrived_ms <= first + STAY_MS);
            }
        }

        #[test]
        fn jobs_that_come_in_turns_share_a_load_while_others_of_their_model_wait(takes in 500..4_000_i64) {
            // Twice as many come as can be painted.
            let jobs: Vec<_> = (0..300_u16).map(|job| (takes / 2, (job % 2) as u8, takes)).collect();
            let (claims, loads) = serve(&jobs);
            let came = claims.iter().map(|(next, _)| next.arrived_ms).max().unwrap();
            prop_assert!(i64::from(loads) <= came / STAY_MS + 4, "{loads} loads in {came} ms");
        }
    }
}
