//! A forecast being made.

use std::collections::HashMap;

use super::{
    super::{
        batcher::rank,
        shares::Turn,
        step_times::{Costs, Kind},
        work::Work,
    },
    Forecast, Scene,
};
use crate::domain::JobId;

/// Canvases that may be looked at, all calls together, while one call is played after the other, which takes a millisecond. Behind that time
/// jumps from one picture's last call to the next: until then who shares whose calls hardly changes.
const EXACT_LOOKS: usize = 5_000;
/// The same of all: what is further away than that is not foreseen.
const MOST_LOOKS: usize = 50_000;
/// What of a newcomer is due at first, so that a share just below one brings as many as it says, and not one less at any time.
const EVEN_CHANCE: f64 = 0.5;
/// Less of a call than this is left over by arithmetic.
const NOTHING: f64 = 1e-6;

/// A picture on its way, of the job at a place.
#[derive(Debug, Clone, Copy)]
struct Canvas {
    job: usize,
    calls: f64,
}

impl Canvas {
    fn is_done(&self) -> bool {
        self.calls < NOTHING
    }
}

/// The canvases of one kind that would share the next call.
struct Group {
    kind: Kind,
    places: Vec<usize>,
    /// Of the call.
    seconds: f64,
    /// As [`Turn::weight`].
    weight: f64,
}

/// A forecast being made.
pub(super) struct Play<'a> {
    scene: Scene,
    costs: &'a HashMap<Kind, Costs>,
    now: f64,
    /// Claimed; also those that have ended, which have no canvases any more.
    jobs: Vec<Work>,
    canvases: Vec<Canvas>,
    /// Who comes while the next call is made, and joins behind it.
    coming: Vec<Work>,
    /// What the last call took: decodes hold up the others for about as long.
    last_call: f64,
    /// Jobs that there are and that have not ended.
    awaited: usize,
    arrivals: usize,
    /// Of a newcomer that is due.
    credit: f64,
    forecast: Forecast,
}

impl<'a> Play<'a> {
    pub(super) fn new(mut scene: Scene, costs: &'a HashMap<Kind, Costs>) -> Self {
        let jobs = std::mem::take(&mut scene.device);
        let awaited = jobs.len() + scene.queue.len();
        let coming: Vec<Work> = if scene.is_between_calls { Vec::new() } else { scene.queue.drain(..).collect() };
        Self {
            now: scene.now,
            costs,
            canvases: Vec::new(),
            last_call: 0.0,
            awaited,
            jobs,
            coming,
            arrivals: 0,
            credit: EVEN_CHANCE,
            forecast: Forecast { horizon: scene.now, ..Forecast::default() },
            scene,
        }
    }

    pub(super) fn run(mut self, wanted: Option<JobId>) -> Forecast {
        self.begin_on_device();
        let mut looks = 0;
        while self.awaited > 0 && wanted.is_none_or(|job| !self.forecast.ends.contains_key(&job)) && looks < MOST_LOOKS {
            let is_exact = looks < EXACT_LOOKS;
            if !self.fill() || (self.canvases.is_empty() && self.coming.is_empty()) {
                break;
            }
            looks += self.canvases.len().max(1);
            let Some(groups) = self.groups() else { break };
            let coming = std::mem::take(&mut self.coming);
            if is_exact {
                self.call(&groups);
            } else {
                self.jump(&groups);
            }
            self.scene.queue.extend(coming);
            self.decode_done();
            if !is_exact {
                self.scene.queue.extend(self.coming.drain(..));
            }
            self.forecast.horizon = self.now;
        }
        self.forecast
    }

    /// Canvases that have begun are on the device, whatever else there is room for.
    fn begin_on_device(&mut self) {
        for (job, work) in self.jobs.iter_mut().enumerate() {
            self.canvases.extend(work.begun.drain(..).map(|calls| Canvas { job, calls: f64::from(calls) }));
        }
        if let Some(last_call) = self.scene.decodes_after {
            self.last_call = last_call;
            self.decode_done();
        }
    }

    /// Claims jobs and begins pictures as far as there is room. `false` when nothing is known of what would begin.
    fn fill(&mut self) -> bool {
        let most = self.scene.max_canvases;
        loop {
            while self.canvases.len() < most
                && let Some(job) = self.jobs.iter().position(|work| work.unbegun > 0)
            {
                let work = &mut self.jobs[job];
                let Some(costs) = self.costs.get(&work.kind) else { return false };
                work.unbegun -= 1;
                self.now += costs.encode(work.sends_pictures).seconds();
                self.canvases.push(Canvas { job, calls: f64::from(work.calls) });
            }
            if self.canvases.len() >= most {
                return true;
            }
            let Some(work) = self.scene.queue.pop_front() else { return true };
            self.forecast.next_claim.get_or_insert(self.now);
            self.jobs.push(Work { came: self.now, ..work });
        }
    }

    /// Who would share a call with whom.
    fn groups(&self) -> Option<Vec<Group>> {
        // The calls of each job.
        let mut left: Vec<f64> = self.jobs.iter().map(|work| f64::from(work.unbegun) * f64::from(work.calls)).collect();
        let mut kinds: Vec<&Kind> = Vec::new();
        for canvas in self.canvases.iter().filter(|canvas| !canvas.is_done()) {
            left[canvas.job] += canvas.calls;
            let kind = &self.jobs[canvas.job].kind;
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        kinds.into_iter().map(|kind| self.group(kind, &left)).collect()
    }

    fn group(&self, kind: &Kind, left: &[f64]) -> Option<Group> {
        let curve = &self.costs.get(kind)?.calls;
        let job = |place: usize| &self.jobs[self.canvases[place].job];
        let moves = |&place: &usize| !self.canvases[place].is_done() && job(place).kind == *kind;
        let mut order: Vec<usize> = (0..self.canvases.len()).filter(moves).collect();
        let seconds = |place: usize| left[self.canvases[place].job] * curve.seconds(job(place).rows).unwrap_or_default();
        let ranks: Vec<f64> = (0..self.canvases.len()).map(|place| rank(job(place).turn(), seconds(place))).collect();
        order.sort_by(|&one, &other| ranks[one].total_cmp(&ranks[other]));
        let (mut places, rows) = self.scene.limits.fill(&order, |place| (job(place).rows, kind.pixels));
        let best = curve.best(&rows);
        places.truncate(best + 1);
        let weight = order.len() as f64 / places.len().max(1) as f64;
        Some(Group { kind: kind.clone(), seconds: curve.seconds(*rows.get(best)?)?, weight, places })
    }

    /// The call of the group that is furthest behind, of equals that of the oldest canvas.
    fn call(&mut self, groups: &[Group]) {
        let behind = |group: &&Group| self.scene.shares.behind(&group.kind);
        let Some(next) = groups.iter().rev().max_by(|one, other| behind(one).total_cmp(&behind(other))) else { return };
        next.places.iter().for_each(|&place| self.canvases[place].calls -= 1.0);
        self.now += next.seconds;
        self.last_call = next.seconds;
        let turns: Vec<_> = groups.iter().map(|group| Turn { key: group.kind.clone(), weight: group.weight }).collect();
        self.scene.shares.settle(&turns, &next.kind, next.seconds);
    }

    /// Lets time pass until the first of those that move has done its last call.
    fn jump(&mut self, groups: &[Group]) {
        let total: f64 = groups.iter().map(|group| group.weight).sum();
        // Calls a second that each of a group's canvases has, beside the other groups.
        let pace = |group: &Group| group.weight / total / group.seconds;
        let until_done = |group: &Group| {
            let least = group.places.iter().map(|&place| self.canvases[place].calls).fold(f64::INFINITY, f64::min);
            least / pace(group)
        };
        let passed = groups.iter().map(until_done).fold(f64::INFINITY, f64::min);
        if passed.is_finite() {
            for group in groups {
                group.places.iter().for_each(|&place| self.canvases[place].calls -= passed * pace(group));
            }
            self.now += passed;
        }
        // All that are done go through the VAE.
        self.last_call = f64::INFINITY;
    }

    /// Pictures that have done their last call go through the VAE and out, as [`super::super::device`] has it: one, and while others have calls
    /// to make as many more as take no longer than a call.
    fn decode_done(&mut self) {
        let start = self.now;
        let others_move = self.canvases.iter().any(|canvas| !canvas.is_done());
        let oldest = |canvases: &[Canvas]| {
            (0..canvases.len()).filter(|&place| canvases[place].is_done()).min_by_key(|&place| canvases[place].job)
        };
        while let Some(place) = oldest(&self.canvases) {
            let Canvas { job, .. } = self.canvases.remove(place);
            let took = self.costs.get(&self.jobs[job].kind).map_or(0.0, |costs| costs.decode.seconds());
            self.now += took;
            if self.jobs[job].unbegun == 0 && !self.canvases.iter().any(|other| other.job == job) {
                self.end(job);
            }
            if others_move && self.now - start + took > self.last_call {
                break;
            }
        }
    }

    /// A job is done, and others come as they have come when others were done.
    fn end(&mut self, job: usize) {
        if let Some(id) = self.jobs[job].job {
            self.forecast.ends.insert(id, self.now + self.scene.storing);
            self.awaited -= 1;
        }
        let (newcomers, share) = &self.scene.newcomers;
        self.credit += share;
        if self.credit >= 1.0 && !newcomers.is_empty() {
            self.credit -= 1.0;
            self.arrivals += 1;
            let work = Work { job: None, ..newcomers[self.arrivals % newcomers.len()].clone() };
            self.coming.push(work);
        }
    }
}
