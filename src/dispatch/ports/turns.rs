//! Whose turn it is among jobs of different models. A pure function, so that fairness can be proved without a device or a store.

use std::{collections::BTreeMap, time::Duration};

/// What the claims know about the models of a server. A model that is on the device has an advantage, and a limited one, so that jobs
/// that come in turns do not load a model each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelTurns {
    /// How much earlier than it came a job counts whose model is here, and how long a job may wait for the models that are.
    pub stay: Duration,
    /// How models stand; one that is not named could come at once.
    pub models: BTreeMap<String, ModelTurn>,
}

/// How a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelTurn {
    /// On the device or on its way to it.
    Here,
    /// It can only come when canvases of another model have left.
    Displaces,
    /// It must leave for a job that waits on the device: nothing of it is claimed.
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
    /// Chooses among the heads of all sets of models that have queued jobs. A job of several models stands as the worst of them.
    ///
    /// A job whose models are here goes before one of others that came up to `stay` earlier, and no more than that. While nobody
    /// else waits whom it could overtake, a job that would make a busy model leave is held back, for `stay` at most: more work for the
    /// models that are here may come. So of jobs of one priority none goes before another that came more than `stay` before it, and a
    /// model that has work stays for about `stay`.
    pub fn choose<'a>(&self, heads: &'a [QueueHead], now_ms: i64) -> Option<&'a QueueHead> {
        let mut order: Vec<&QueueHead> = heads.iter().filter(|head| self.stands(head) != Some(ModelTurn::Leaves)).collect();
        order.sort_by_key(|head| (self.rank_ms(head), head.seq));
        let is_due = |place: usize, head: &QueueHead| {
            self.stands(head) != Some(ModelTurn::Displaces)
                || now_ms >= head.arrived_ms.saturating_add(self.stay_ms())
                || order[place + 1..].iter().any(|other| self.stands(other) == Some(ModelTurn::Here))
        };
        order.iter().enumerate().find(|(place, head)| is_due(*place, head)).map(|(_, head)| *head)
    }

    fn stands(&self, head: &QueueHead) -> Option<ModelTurn> {
        let is_any = |turn: &Option<ModelTurn>| head.models.iter().any(|model| self.models.get(model) == turn.as_ref());
        let worst = [Some(ModelTurn::Leaves), Some(ModelTurn::Displaces), None].into_iter().find(is_any);
        worst.unwrap_or(Some(ModelTurn::Here))
    }

    fn rank_ms(&self, head: &QueueHead) -> i64 {
        let bonus = if self.stands(head) == Some(ModelTurn::Here) { self.stay_ms() } else { 0 };
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

    fn turns(models: &[(&str, ModelTurn)]) -> ModelTurns {
        let models = models.iter().map(|&(model, turn)| (model.to_owned(), turn)).collect();
        ModelTurns { stay: Duration::from_millis(STAY_MS as u64), models }
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
        let turns = turns(&[("a", ModelTurn::Here)]);
        assert_eq!(chosen(&turns, &[head("a", STAY_MS - 1), head("b", 0)], STAY_MS), Some("a".to_owned()));
        assert_eq!(chosen(&turns, &[head("a", STAY_MS + 1), head("b", 0)], STAY_MS + 1), Some("b".to_owned()));
    }

    #[test]
    fn a_job_that_would_make_a_busy_model_leave_waits_for_so_long_and_no_longer() {
        let turns = turns(&[("a", ModelTurn::Here), ("b", ModelTurn::Displaces)]);
        assert_eq!(chosen(&turns, &[head("b", 0)], STAY_MS - 1), None);
        assert_eq!(chosen(&turns, &[head("b", 0), head("c", 5)], STAY_MS - 1), Some("c".to_owned()), "c disturbs nobody");
        assert_eq!(chosen(&turns, &[head("b", 0)], STAY_MS), Some("b".to_owned()));
    }

    #[test]
    fn a_high_priority_makes_a_busy_model_leave_at_once_when_it_would_be_overtaken_else() {
        let turns = turns(&[("a", ModelTurn::Here), ("b", ModelTurn::Displaces)]);
        let urgent = QueueHead { turn_ms: -10 * STAY_MS, ..head("b", 100) };
        assert_eq!(chosen(&turns, &[head("a", 50), urgent], 100), Some("b".to_owned()));
    }

    #[test]
    fn nothing_is_claimed_of_a_model_that_must_leave() {
        let turns = turns(&[("a", ModelTurn::Leaves), ("b", ModelTurn::Here)]);
        assert_eq!(chosen(&turns, &[head("a", 0)], 10 * STAY_MS), None);
        assert_eq!(chosen(&turns, &[head("a", 0), head("b", 9)], 10), Some("b".to_owned()));
    }

    #[test]
    fn a_job_of_several_models_stands_as_the_worst_of_them() {
        let turns = turns(&[("a", ModelTurn::Here), ("b", ModelTurn::Here), ("c", ModelTurn::Displaces), ("d", ModelTurn::Leaves)]);
        let pair = |refiner: &str| QueueHead { models: ["a", refiner].map(str::to_owned).to_vec(), ..head("a", 0) };
        assert!(turns.choose(&[pair("b")], 1).is_some());
        assert_eq!(turns.choose(&[pair("c")], STAY_MS - 1), None, "its refiner would make a busy model leave");
        assert!(turns.choose(&[pair("c")], STAY_MS).is_some());
        assert_eq!(turns.choose(&[pair("d")], 10 * STAY_MS), None);
        let here = QueueHead { seq: 1, ..pair("b") };
        let later = QueueHead { turn_ms: 1, arrived_ms: 1, ..here };
        assert_eq!(turns.choose(&[pair("e"), later.clone()], 1), Some(&later), "what is here goes before what could come");
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
            let turns = turns(&[(&here, ModelTurn::Here)]);
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
