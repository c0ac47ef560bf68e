//! When jobs will be done: the device's next hours, played through in a moment. A pure function of what is on the device, what waits,
//! and what was measured.
//!
//! Between two events (a picture has done its last call, a job has begun) who shares whose calls does not change, so that time can jump
//! from one to the next. The rules are those of [`super::batcher`], but that pictures of other cache intervals never share a call here;
//! models that have to come first are not foreseen.

use std::collections::{HashMap, VecDeque};

use super::{
    batcher::{StepLimits, rank},
    step_times::{Costs, Kind},
    work::Work,
};
use crate::domain::JobId;

/// Canvases that may be looked at, all events together: what is further away than that is not foreseen.
const MOST_LOOKS: usize = 50_000;
/// What of a newcomer is due at first, so that a share just below one brings as many as it says, and not one less at any time.
const EVEN_CHANCE: f64 = 0.5;
/// Less of a call than this is left over by arithmetic.
const NOTHING: f64 = 1e-6;

/// What a forecast starts from.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    /// By the device's clock, in seconds.
    pub(super) now: f64,
    /// Oldest first.
    pub(super) device: Vec<Work>,
    /// In the order of the turns.
    pub(super) queue: VecDeque<Work>,
    /// Jobs of the kinds that come, and how many of them come for each that ends.
    pub(super) newcomers: (Vec<Work>, f64),
    pub(super) costs: HashMap<Kind, Costs>,
    pub(super) limits: StepLimits,
    pub(super) max_canvases: usize,
    /// Seconds from a job's last decode until its pictures are stored.
    pub(super) storing: f64,
}

/// What is foreseen.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Forecast {
    /// When jobs end, in seconds of the device's clock, as far as it can be foreseen.
    pub(super) ends: HashMap<JobId, f64>,
    /// When the next job is claimed, if one waits.
    pub(super) next_claim: Option<f64>,
    /// Until when things are foreseen: a job without an end takes longer than this.
    pub(super) horizon: f64,
}

impl Scene {
    /// Plays it through until this job has ended, or all that there are.
    pub(super) fn play(mut self, wanted: Option<JobId>) -> Forecast {
        let costs = std::mem::take(&mut self.costs);
        let mut play = Play {
            now: self.now,
            jobs: std::mem::take(&mut self.device),
            canvases: Vec::new(),
            awaited: self.queue.len(),
            arrivals: 0,
            credit: EVEN_CHANCE,
            forecast: Forecast::default(),
            scene: self,
            costs: &costs,
        };
        play.awaited += play.jobs.len();
        play.forecast.horizon = play.now;
        if play.jobs.iter().all(|work| costs.contains_key(&work.kind)) {
            play.run(wanted);
        }
        play.forecast
    }
}

/// A picture on its way, of the job at a place.
#[derive(Debug, Clone, Copy)]
struct Canvas {
    job: usize,
    calls: f64,
}

/// A forecast being made.
struct Play<'a> {
    scene: Scene,
    costs: &'a HashMap<Kind, Costs>,
    now: f64,
    /// Claimed; also those that have ended, which have no canvases any more.
    jobs: Vec<Work>,
    canvases: Vec<Canvas>,
    /// Jobs that there are and that have not ended.
    awaited: usize,
    arrivals: usize,
    /// Of a newcomer that is due.
    credit: f64,
    forecast: Forecast,
}

/// The canvases of one kind that would share the next call.
struct Group {
    places: Vec<usize>,
    /// Of the call.
    seconds: f64,
    /// As [`super::shares::Turn::weight`].
    weight: f64,
}

impl Play<'_> {
    fn run(&mut self, wanted: Option<JobId>) {
        self.begin_on_device();
        self.end_the_call();
        let mut looks = 0;
        while self.awaited > 0 && wanted.is_none_or(|job| !self.forecast.ends.contains_key(&job)) && looks < MOST_LOOKS {
            if !self.fill() || self.canvases.is_empty() {
                break;
            }
            looks += self.canvases.len();
            let Some(groups) = self.groups() else { break };
            self.advance(&groups, f64::INFINITY);
            self.decode_done();
            self.forecast.horizon = self.now;
        }
    }

    /// Canvases that have begun are on the device, whatever else there is room for.
    fn begin_on_device(&mut self) {
        for (job, work) in self.jobs.iter_mut().enumerate() {
            self.canvases.extend(work.begun.drain(..).map(|calls| Canvas { job, calls: f64::from(calls) }));
        }
        self.decode_done();
    }

    /// Whoever comes to a device that paints waits for the end of the call that is being made.
    fn end_the_call(&mut self) {
        if !self.canvases.is_empty()
            && let Some(groups) = self.groups()
        {
            let call = groups.iter().map(|group| group.seconds).sum::<f64>() / groups.len() as f64;
            self.advance(&groups, call);
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
        let mut left = vec![0.0; self.jobs.len()];
        let mut kinds: Vec<&Kind> = Vec::new();
        for canvas in &self.canvases {
            let work = &self.jobs[canvas.job];
            left[canvas.job] += canvas.calls * self.costs.get(&work.kind)?.calls.seconds(work.rows)?;
            if !kinds.contains(&&work.kind) {
                kinds.push(&work.kind);
            }
        }
        kinds.into_iter().map(|kind| self.group(kind, &left)).collect()
    }

    fn group(&self, kind: &Kind, left: &[f64]) -> Option<Group> {
        let curve = &self.costs.get(kind)?.calls;
        let job = |place: usize| &self.jobs[self.canvases[place].job];
        let mut order: Vec<usize> = (0..self.canvases.len()).filter(|&place| job(place).kind == *kind).collect();
        let rank = |place: usize| rank(job(place).turn(), left[self.canvases[place].job]);
        order.sort_by(|&one, &other| rank(one).total_cmp(&rank(other)));
        let (mut places, rows) = self.scene.limits.fill(&order, |place| (job(place).rows, kind.pixels));
        let best = curve.best(&rows);
        places.truncate(best + 1);
        let weight = order.len() as f64 / places.len().max(1) as f64;
        Some(Group { seconds: curve.seconds(*rows.get(best)?)?, weight, places })
    }

    /// Lets time pass until the first of those that move has done its last call, and so many seconds at most.
    fn advance(&mut self, groups: &[Group], most: f64) {
        let total: f64 = groups.iter().map(|group| group.weight).sum();
        // Calls a second that each of a group's canvases has, beside the other groups.
        let pace = |group: &Group| group.weight / total / group.seconds;
        let until_done = |group: &Group| {
            let least = group.places.iter().map(|&place| self.canvases[place].calls).fold(f64::INFINITY, f64::min);
            least / pace(group)
        };
        let passed = groups.iter().map(until_done).fold(most, f64::min);
        for group in groups {
            group.places.iter().for_each(|&place| self.canvases[place].calls -= passed * pace(group));
        }
        self.now += passed;
    }

    /// The pictures that have done their last call go through the VAE, one after the other, and out.
    fn decode_done(&mut self) {
        let done: Vec<Canvas> = self.canvases.extract_if(.., |canvas| canvas.calls < NOTHING).collect();
        for (place, canvas) in done.iter().enumerate() {
            let work = &self.jobs[canvas.job];
            self.now += self.costs.get(&work.kind).map_or(0.0, |costs| costs.decode.seconds());
            let mut others = done[place + 1..].iter().chain(&self.canvases);
            if work.unbegun == 0 && !others.any(|other| other.job == canvas.job) {
                self.end(canvas.job);
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
            self.scene.queue.push_back(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(side: usize) -> Kind {
        Kind { model: "a".into(), pixels: side * side, cache_interval: 1, fp8_linears: false }
    }

    /// A job of one picture of two rows.
    fn work(side: usize, calls: u32) -> Work {
        let job = Some(JobId::random());
        let kind = kind(side);
        Work { job, kind, rows: 2, calls, sends_pictures: false, begun: Vec::new(), unbegun: 1, head_start: 0.0, came: 0.0 }
    }

    /// The same on the device.
    fn begun(side: usize, calls: u32) -> Work {
        Work { begun: vec![calls], unbegun: 0, ..work(side, calls) }
    }

    fn costs(call: impl Fn(usize) -> f64, decode: f64) -> Costs {
        let mut costs = Costs::default();
        [2, 4, 8, 16, 32].iter().for_each(|&rows| costs.calls.note(rows, call(rows)));
        costs.decode.note(decode);
        costs
    }

    fn scene(device: &[Work], queue: &[Work], costs: &Costs) -> Scene {
        Scene {
            now: 100.0,
            device: device.to_vec(),
            queue: queue.iter().cloned().collect(),
            newcomers: (Vec::new(), 0.0),
            costs: [(kind(64), costs.clone())].into(),
            limits: StepLimits { rows: 32, pixels: usize::MAX },
            max_canvases: 4,
            storing: 0.5,
        }
    }

    /// When each of the jobs ends, in seconds from the beginning.
    fn ends(scene: Scene, jobs: &[&Work]) -> Vec<Option<f64>> {
        let forecast = scene.play(None);
        let end = |work: &&Work| forecast.ends.get(&work.job.unwrap()).map(|end| (end * 1e3).round() / 1e3 - 100.0);
        jobs.iter().map(end).collect()
    }

    /// A second a row.
    fn rows_bring_nothing() -> Costs {
        costs(|rows| rows as f64, 3.0)
    }

    /// A second a call.
    fn rows_are_free() -> Costs {
        costs(|_| 1.0, 3.0)
    }

    #[test]
    fn a_job_alone_takes_its_calls_its_decode_and_its_storing() {
        let job = begun(64, 10);
        assert_eq!(ends(scene(std::slice::from_ref(&job), &[], &rows_bring_nothing()), &[&job]), [Some(23.5)]);
    }

    #[test]
    fn a_job_that_sends_a_picture_begins_with_the_vaes_encoder() {
        let (plain, sent) = (work(64, 10), Work { sends_pictures: true, ..work(64, 10) });
        let mut costs = rows_bring_nothing();
        costs.encode_mut(false).note(1.0);
        let alone = |job: &Work, costs: &Costs| ends(scene(&[], std::slice::from_ref(job), costs), &[job]);
        assert_eq!(alone(&sent, &costs), [Some(24.5)], "as long as none was measured it takes what others do");
        costs.encode_mut(true).note(4.0);
        assert_eq!((alone(&plain, &costs), alone(&sent, &costs)), (vec![Some(24.5)], vec![Some(27.5)]));
    }

    #[test]
    fn where_rows_bring_nothing_the_shortest_is_done_first() {
        let (long, short) = (begun(64, 10), begun(64, 2));
        let scene = scene(&[long.clone(), short.clone()], &[], &rows_bring_nothing());
        assert_eq!(ends(scene, &[&long, &short]), [Some(30.5), Some(7.5)]);
    }

    #[test]
    fn where_rows_are_free_all_are_painted_together() {
        let (long, short) = (begun(64, 10), begun(64, 2));
        let scene = scene(&[long.clone(), short.clone()], &[], &rows_are_free());
        // The longer one waits for the decode of the shorter one.
        assert_eq!(ends(scene, &[&long, &short]), [Some(16.5), Some(5.5)]);
    }

    #[test]
    fn what_waits_begins_when_there_is_room_and_the_next_claim_is_foreseen() {
        let device = [begun(64, 4), begun(64, 4), begun(64, 4), begun(64, 9)];
        let waits = work(64, 5);
        let scene = scene(&device, std::slice::from_ref(&waits), &costs(|_| 1.0, 0.0));
        let forecast = scene.clone().play(None);
        assert_eq!(forecast.next_claim, Some(104.0));
        assert_eq!(ends(scene, &[&device[3], &waits]), [Some(9.5), Some(9.5)]);
    }

    #[test]
    fn sizes_that_cannot_share_calls_share_the_time() {
        let (small, large) = (begun(64, 10), begun(128, 10));
        let mut scene = scene(&[small.clone(), large.clone()], &[], &costs(|_| 1.0, 0.0));
        scene.costs.insert(kind(128), costs(|_| 4.0, 0.0));
        assert_eq!(ends(scene, &[&small, &large]), [Some(20.5), Some(50.5)]);
    }

    #[test]
    fn while_others_come_for_those_that_end_a_job_has_company_to_its_end() {
        let (short, long) = (begun(64, 10), begun(64, 20));
        let mut busy = scene(&[short.clone(), long.clone()], &[], &costs(|rows| rows as f64 / 2.0 + 1.0, 0.0));
        let quiet = busy.clone();
        busy.newcomers = (vec![work(64, 10)], 1.0);
        assert_eq!(ends(quiet, &[&short, &long]), [Some(30.5), Some(50.5)]);
        assert_eq!(ends(busy, &[&short, &long]), [Some(30.5), Some(60.5)]);
    }

    #[test]
    fn a_share_of_nearly_one_brings_a_newcomer_for_the_first_that_ends() {
        let (short, long) = (begun(64, 10), begun(64, 20));
        let mut scene = scene(&[short, long.clone()], &[], &costs(|rows| rows as f64 / 2.0 + 1.0, 0.0));
        scene.newcomers = (vec![work(64, 10)], 15.0 / 16.0);
        assert_eq!(ends(scene, &[&long]), [Some(60.5)]);
    }

    #[test]
    fn of_what_was_never_measured_nothing_is_foreseen_nor_of_what_comes_after_it() {
        let (known, unknown, after) = (begun(64, 10), work(128, 10), work(64, 1));
        let mut scene = scene(std::slice::from_ref(&known), &[unknown.clone(), after.clone()], &rows_are_free());
        scene.max_canvases = 1;
        assert_eq!(ends(scene, &[&known, &unknown, &after]), [Some(13.5), None, None]);
    }

    #[test]
    fn pictures_of_one_job_are_painted_as_there_is_room_and_it_ends_with_the_last() {
        let job = Work { unbegun: 5, ..work(64, 2) };
        let mut scene = scene(&[], std::slice::from_ref(&job), &costs(|_| 1.0, 0.0));
        scene.max_canvases = 2;
        assert_eq!(ends(scene, &[&job]), [Some(6.5)]);
    }

    #[test]
    fn a_forecast_has_an_end_however_many_come() {
        let jobs: Vec<Work> = (0..400).map(|_| work(64, 150)).collect();
        let mut scene = scene(&[], &jobs, &rows_bring_nothing());
        scene.newcomers = (vec![work(64, 1)], 1.0);
        let forecast = scene.play(None);
        assert!(forecast.horizon.is_finite() && forecast.ends.len() > 10);
    }
}
