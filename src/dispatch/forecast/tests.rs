use proptest::prelude::*;

use super::{
    super::{
        batcher::{Candidate, next_batch, rank},
        ports::BatchKey,
        step_times::StepTimes,
    },
    *,
};

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
        is_between_calls: false,
        decodes_after: None,
        device: device.to_vec(),
        shares: Shares::default(),
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
    // Of the first 22 seconds the small one has ten calls and the large one three.
    assert_eq!(ends(scene, &[&small, &large]), [Some(22.5), Some(50.5)]);
}

#[test]
fn while_others_come_for_those_that_end_a_job_has_company_to_its_end() {
    let (short, long) = (begun(64, 10), begun(64, 20));
    let mut busy = scene(&[short.clone(), long.clone()], &[], &costs(|rows| rows as f64 / 2.0 + 1.0, 0.0));
    let quiet = busy.clone();
    busy.newcomers = (vec![work(64, 10)], 1.0);
    assert_eq!(ends(quiet, &[&short, &long]), [Some(30.5), Some(50.5)]);
    // It comes while the long one makes a call alone.
    assert_eq!(ends(busy, &[&short, &long]), [Some(30.5), Some(59.5)]);
}

#[test]
fn a_share_of_nearly_one_brings_a_newcomer_for_the_first_that_ends() {
    let (short, long) = (begun(64, 10), begun(64, 20));
    let mut scene = scene(&[short, long.clone()], &[], &costs(|rows| rows as f64 / 2.0 + 1.0, 0.0));
    scene.newcomers = (vec![work(64, 10)], 15.0 / 16.0);
    assert_eq!(ends(scene, &[&long]), [Some(59.5)]);
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

/// A device that is measured, and does what [`super::super::device`] does, call by call.
struct Played {
    now: f64,
    device: Vec<Work>,
    shares: Shares,
    times: StepTimes,
    last_call: f64,
    ends: HashMap<JobId, f64>,
}

impl Played {
    fn candidates(&self) -> (Vec<(usize, usize)>, Vec<Candidate>) {
        let of_job = |(job, work): (usize, &Work)| {
            let rank = rank(work.turn(), work.left(&self.times));
            let key = BatchKey::new(&work.kind.pixels.to_string());
            let candidate = Candidate { key, kind: work.kind.clone(), is_shallow: false, rows: work.rows, rank };
            let moving = (0..work.begun.len()).filter(|&slot| work.begun[slot] > 0);
            moving.map(|slot| ((job, slot), candidate.clone())).collect::<Vec<_>>()
        };
        self.device.iter().enumerate().flat_map(of_job).unzip()
    }

    fn call(&mut self, limits: StepLimits) {
        let (slots, candidates) = self.candidates();
        let Some(batch) = next_batch(&candidates, limits, (&self.times, &self.shares)) else { return };
        let rows = batch.places.iter().map(|&place| candidates[place].rows).sum();
        let kind = &candidates[batch.places[0]].kind;
        self.last_call = self.times.calls(kind, false).unwrap().seconds(rows).unwrap();
        self.now += self.last_call;
        batch.places.iter().map(|&place| slots[place]).for_each(|(job, slot)| self.device[job].begun[slot] -= 1);
        self.shares.settle(&batch.turns, &batch.key, self.last_call);
    }

    fn finish(&mut self) {
        let (start, others_move) = (self.now, self.device.iter().any(|work| work.begun.iter().any(|&calls| calls > 0)));
        while let Some(job) = self.device.iter().position(|work| work.begun.contains(&0)) {
            let work = &mut self.device[job];
            let took = self.times.expected(&work.kind).unwrap().decode.seconds();
            self.now += took;
            let done = work.begun.iter().position(|&calls| calls == 0).unwrap();
            work.begun.remove(done);
            if work.begun.is_empty() {
                self.ends.insert(work.job.unwrap(), self.now);
            }
            if others_move && self.now - start + took > self.last_call {
                break;
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_foreseen_of_those_that_are_there_is_what_the_batcher_makes_of_them(
        jobs in prop::collection::vec((0..3_usize, 1..3_usize, prop::collection::vec(0..12_u32, 1..4)), 1..8),
        (fixed, row, decode, last_call) in (0.0..2.0_f64, 0.01..1.0_f64, 0.0..3.0_f64, 0.0..9.0_f64),
    ) {
        let sides = [64, 96, 128];
        let weight = |side: usize| (side * side) as f64 / 4096.0;
        let mut times = StepTimes::default();
        for side in sides {
            let seconds = |rows: usize| fixed + row * rows as f64 * weight(side);
            (0..2).for_each(|_| [1, 2, 4, 8, 16, 32].iter().for_each(|&rows| times.of_mut(&kind(side)).calls.note(rows, seconds(rows))));
            times.of_mut(&kind(side)).decode.note(decode * weight(side));
        }
        let of_kind = |(side, rows, calls): (usize, usize, Vec<u32>)| Work { rows, begun: calls, ..begun(sides[side], 1) };
        let device: Vec<Work> = jobs.into_iter().map(of_kind).collect();
        let mut scene = scene(&device, &[], &Costs::default());
        scene.costs = sides.iter().map(|&side| (kind(side), times.expected(&kind(side)).unwrap())).collect();
        (scene.max_canvases, scene.storing, scene.decodes_after) = (32, 0.0, Some(last_call));
        let limits = scene.limits;
        let foreseen = scene.play(None).ends;
        let mut played = Played { now: 100.0, device, shares: Shares::default(), times, last_call, ends: HashMap::new() };
        played.finish();
        while played.ends.len() < foreseen.len() {
            played.call(limits);
            played.finish();
        }
        prop_assert_eq!(foreseen.len(), played.device.len());
        for (job, end) in &played.ends {
            prop_assert!((foreseen[job] - end).abs() < 1e-6, "{} and not {end}", foreseen[job]);
        }
    }
}

#[test]
fn who_comes_between_two_calls_has_a_part_in_the_next() {
    let (there, comes) = (begun(64, 10), work(64, 10));
    let mut scene = scene(std::slice::from_ref(&there), std::slice::from_ref(&comes), &costs(|_| 1.0, 0.0));
    assert_eq!(ends(scene.clone(), &[&there, &comes]), [Some(10.5), Some(11.5)], "one call is being made");
    scene.is_between_calls = true;
    assert_eq!(ends(scene, &[&there, &comes]), [Some(10.5), Some(10.5)]);
}
