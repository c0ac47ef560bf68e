//! What the dispatcher expects: when each job will be done, and when the queue will have a place.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::Instant,
};

use super::{
    DispatchSettings,
    forecast::{Forecast, Scene},
    shared::lock,
    shares::Shares,
    step_times::{Kind, Mean, StepTimes},
    work::Work,
};
use crate::domain::JobId;

/// Waiting jobs that are looked at, the next to be claimed first.
pub(super) const FORESEEN: u32 = 128;
/// Jobs of which it is remembered what was expected when they came.
const MOST_PROMISED: usize = 4096;
/// Jobs that came last, for which like ones are expected; and ends that tell how many.
const RECENT: usize = 16;

/// What was measured, what is there, and what follows from it. The device's thread and the tasks write and read it; the lock is held for as
/// long as it takes to copy that, and never while a forecast is made.
#[derive(Debug)]
pub(super) struct Outlook {
    state: Mutex<State>,
    foresight: Foresight,
}

/// What the settings say about it.
#[derive(Debug)]
struct Foresight {
    limits: super::StepLimits,
    max_canvases: usize,
    ageing: f64,
}

#[derive(Debug)]
struct State {
    times: StepTimes,
    storing: Mean,
    device: OnDevice,
    /// Claimed, and on its way to the device.
    coming: Vec<Work>,
    /// When it was as it stands here.
    seen: Instant,
    /// The first of those that wait; `None` while the queue is paused.
    queue: Option<Vec<Work>>,
    /// `queue` is all that waits.
    sees_all: bool,
    traffic: Traffic,
    forecast: Forecast,
    /// What was expected of each job when it came: seconds.
    promised: HashMap<JobId, f64>,
}

/// What the device holds at a time.
#[derive(Debug, Default)]
pub(super) struct OnDevice {
    /// Its clock, in seconds.
    pub(super) now: f64,
    /// Seconds that it has still to do of what stands here as done.
    pub(super) behind: f64,
    /// What the last call took, while pictures that are done have still to go through the VAE before the next; `None` behind that.
    pub(super) decodes_after: Option<f64>,
    /// Oldest first.
    pub(super) work: Vec<Work>,
    /// How their kinds stand with each other.
    pub(super) shares: Shares<Kind>,
}

/// What has come and gone lately.
#[derive(Debug, Default)]
struct Traffic {
    came: VecDeque<Work>,
    arrivals: u64,
    /// How many had come when the last jobs ended.
    ends: VecDeque<u64>,
}

impl Traffic {
    fn note_arrival(&mut self, work: Work) {
        self.arrivals += 1;
        self.came.push_back(work);
        if self.came.len() > RECENT {
            self.came.pop_front();
        }
    }

    fn note_end(&mut self) {
        self.ends.push_back(self.arrivals);
        if self.ends.len() > RECENT {
            self.ends.pop_front();
        }
    }

    /// How many jobs come for each that ends: most clients send the next when they have got the last, and others send at their own pace,
    /// so that a busy server stays about as busy; while nobody sends any more, it becomes idle. `coming` are those that come this moment.
    fn share(&self, coming: u64) -> f64 {
        let since = self.ends.front().map_or(0, |came| self.arrivals + coming - came);
        (since as f64 / self.ends.len().max(1) as f64).min(1.0)
    }
}

impl State {
    /// The device's time now.
    fn now(&self) -> f64 {
        self.device.now + self.seen.elapsed().as_secs_f64()
    }

    /// What a forecast starts from: the device as it was after its last step. `coming` are the jobs that come this moment.
    fn scene(&self, foresight: &Foresight, coming: u64) -> Scene {
        let queue = self.queue.as_deref().unwrap_or_default();
        let kinds = self.device.work.iter().chain(&self.coming).chain(queue).chain(&self.traffic.came).map(|work| &work.kind);
        let mut costs = HashMap::new();
        for kind in kinds {
            if !costs.contains_key(kind)
                && let Some(expected) = self.times.expected(kind)
            {
                costs.insert(kind.clone(), expected);
            }
        }
        let done = self.device.now + self.device.behind;
        let like = |work: &&Work| costs.contains_key(&work.kind);
        Scene {
            now: if self.device.work.is_empty() { self.now().max(done) } else { done },
            is_between_calls: self.device.behind > 0.0,
            decodes_after: self.device.decodes_after,
            device: self.device.work.clone(),
            shares: self.device.shares.clone(),
            queue: self.coming.iter().chain(queue).cloned().collect(),
            newcomers: (self.traffic.came.iter().filter(like).cloned().collect(), self.traffic.share(coming)),
            costs,
            limits: foresight.limits,
            max_canvases: foresight.max_canvases,
            storing: self.storing.seconds(),
        }
    }
}

impl Outlook {
    pub(super) fn new(settings: &DispatchSettings) -> Self {
        let state = State {
            times: StepTimes::default(),
            storing: Mean::default(),
            device: OnDevice::default(),
            coming: Vec::new(),
            seen: Instant::now(),
            queue: Some(Vec::new()),
            sees_all: true,
            traffic: Traffic::default(),
            forecast: Forecast::default(),
            promised: HashMap::new(),
        };
        let ageing = settings.ageing.as_secs_f64();
        let foresight = Foresight { limits: settings.step, max_canvases: settings.max_canvases, ageing };
        Self { state: Mutex::new(state), foresight }
    }

    /// Seconds that a step of priority is worth.
    pub(super) fn ageing(&self) -> f64 {
        self.foresight.ageing
    }

    /// Reads or adds to what was measured.
    pub(super) fn times<T>(&self, work: impl FnOnce(&mut StepTimes) -> T) -> T {
        work(&mut lock(&self.state).times)
    }

    /// Whether a job waits or is on its way to the device, as far as is known.
    pub(super) fn has_waiting(&self) -> bool {
        let state = lock(&self.state);
        !state.coming.is_empty() || state.queue.as_ref().is_some_and(|queue| !queue.is_empty())
    }

    /// Storing a job's pictures took so long.
    pub(super) fn note_storing(&self, seconds: f64) {
        lock(&self.state).storing.note(seconds);
    }

    /// What the device holds now.
    pub(super) fn set_device(&self, device: OnDevice) {
        let mut state = lock(&self.state);
        state.coming.retain(|work| device.work.iter().all(|there| there.job != work.job));
        (state.device, state.seen) = (device, Instant::now());
    }

    /// What waits, in the order of claiming, or `None` while the queue is paused; `is_all` of it, or only the first.
    pub(super) fn set_queue(&self, queue: Option<Vec<Work>>, is_all: bool) {
        let mut state = lock(&self.state);
        if queue.is_none() {
            // When what waits will be done is known to whoever lets the queue go on.
            let State { forecast, device, coming, .. } = &mut *state;
            forecast.ends.retain(|job, _| device.work.iter().chain(&*coming).any(|work| work.job == Some(*job)));
            forecast.next_claim = None;
        }
        (state.queue, state.sees_all) = (queue, is_all);
    }

    /// Foresees the ends of all jobs anew. Answers whether it could.
    pub(super) fn look_ahead(&self) -> bool {
        let scene = lock(&self.state).scene(&self.foresight, 0);
        let forecast = scene.play(None);
        let could = !forecast.ends.is_empty();
        lock(&self.state).forecast = forecast;
        could
    }

    /// Seconds until the job has probably ended; `None` where that is not known.
    pub(super) fn eta(&self, job: JobId) -> Option<f64> {
        let state = lock(&self.state);
        state.forecast.ends.get(&job).map(|end| (end - state.now()).max(0.0))
    }

    /// What is expected of a job that would come now, and of it alone.
    pub(super) fn expect(&self, work: &Work) -> Expectation {
        let job = work.job;
        let (mut scene, sees_all, now) = {
            let state = lock(&self.state);
            if state.queue.is_none() {
                return Expectation { end: None, at_least: 0.0 };
            }
            let mut scene = state.scene(&self.foresight, 1);
            if let Some(costs) = state.times.expected(&work.kind) {
                scene.costs.insert(work.kind.clone(), costs);
            }
            (scene, state.sees_all, state.now())
        };
        // It may have been claimed, and have come to the device, meanwhile.
        scene.queue.retain(|other| other.job != job);
        scene.device.retain(|other| other.job != job);
        let is_idle = scene.device.is_empty() && scene.queue.is_empty();
        let place = place_of(work, scene.queue.iter());
        // Behind those that nobody has looked at it takes longer than they do.
        if place.is_none() && !sees_all {
            let horizon = scene.play(None).horizon;
            return Expectation { end: None, at_least: horizon - now };
        }
        scene.queue.insert(place.unwrap_or(scene.queue.len()), work.clone());
        let Forecast { ends, horizon, .. } = scene.play(job);
        let end = job.and_then(|job| ends.get(&job)).map(|end| (end - now).max(0.0));
        // Nobody is in its way: only its own steps can tell whether what was measured, perhaps in a bad moment, still holds.
        let at_least = if is_idle { 0.0 } else { end.unwrap_or(horizon - now) };
        Expectation { end, at_least }
    }

    /// A job has come, of which this is expected.
    pub(super) fn came(&self, work: Work, expectation: Expectation) {
        let mut state = lock(&self.state);
        let now = state.now();
        if let (Some(job), Some(end)) = (work.job, expectation.end) {
            // A job that has ended while it came leaves what it was promised behind. What is lost here are samples of a metric.
            if state.promised.len() >= MOST_PROMISED {
                state.promised.clear();
            }
            state.promised.insert(job, end);
            state.forecast.ends.insert(job, now + end);
        }
        // Those who come next must not wait for the claimer's look to know of it.
        if let Some(queue) = &mut state.queue {
            let place = place_of(&work, queue.iter()).unwrap_or(queue.len());
            queue.insert(place, work.clone());
            queue.truncate(FORESEEN as usize);
        }
        state.traffic.note_arrival(work);
    }

    /// A job has left the queue for the device.
    pub(super) fn claimed(&self, work: Work) {
        let mut state = lock(&self.state);
        if let Some(queue) = &mut state.queue {
            queue.retain(|other| other.job != work.job);
        }
        state.coming.push(work);
    }

    /// A job is no longer on its way to the device, whether it has come there or not.
    pub(super) fn left(&self, job: JobId) {
        lock(&self.state).coming.retain(|work| work.job != Some(job));
    }

    /// Work begins after idleness: what was before tells nothing about who comes now.
    pub(super) fn work_begins(&self) {
        lock(&self.state).traffic.ends.clear();
    }

    /// A job has ended, however. Answers what was expected when it came.
    pub(super) fn ended(&self, job: JobId) -> Option<f64> {
        let mut state = lock(&self.state);
        state.forecast.ends.remove(&job);
        state.traffic.note_end();
        state.promised.remove(&job)
    }

    /// How long it is until the next job leaves the queue; `None` where that is not known.
    pub(super) fn until_next_claim(&self) -> Option<f64> {
        let state = lock(&self.state);
        state.forecast.next_claim.map(|then| (then - state.now()).max(0.0))
    }
}

/// The place of a job among those that wait; `None` behind the last.
fn place_of<'a>(work: &Work, mut queue: impl Iterator<Item = &'a Work>) -> Option<usize> {
    queue.position(|other| other.turn() > work.turn())
}

/// What is expected of a job that comes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Expectation {
    /// Seconds until it has probably ended, if that is known.
    pub(super) end: Option<f64>,
    /// Seconds that it will take at least, as far as that can be held against it.
    pub(super) at_least: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the share after each of the letters: a job comes, or one ends.
    fn shares(letters: &str) -> Vec<f64> {
        let mut traffic = Traffic::default();
        let share = |letter| {
            match letter {
                'c' => traffic.arrivals += 1,
                _ => traffic.note_end(),
            }
            traffic.share(0)
        };
        letters.chars().map(share).collect()
    }

    #[test]
    fn as_many_are_expected_as_have_come_since_others_ended() {
        assert_eq!(shares("cccceeee").last(), Some(&0.0), "a burst that is over");
        assert_eq!(shares("cccecece").last(), Some(&(2.0 / 3.0)));
        assert_eq!(shares("ececececec").last(), Some(&1.0), "each client sends the next when it has got the last");
        assert_eq!(shares("ecccc").last(), Some(&1.0), "no more than one for one");
    }

    #[test]
    fn the_job_that_comes_this_moment_is_one_of_those_that_come() {
        let mut traffic = Traffic::default();
        for _ in 0..RECENT {
            traffic.note_end();
            traffic.arrivals += 1;
        }
        traffic.note_end();
        assert_eq!((traffic.share(0), traffic.share(1)), (15.0 / 16.0, 1.0));
    }
}
