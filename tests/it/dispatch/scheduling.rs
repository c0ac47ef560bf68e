//! Who goes when, by what steps take: the engine's own clock says what that is, and nobody waits for it.

use std::time::Duration;

use easel::{
    dispatch::DispatchError,
    domain::{Event, JobStatus, Origin, Owner},
};
use serde_json::json;
use tokio::time::timeout;

use super::{Call, Costs, PATIENCE, Setup, Studio, many_steps, submission};

/// As of a large model on a CPU: rows bring nothing, and a step of one picture takes two seconds.
const LARGE_ON_A_CPU: Costs = Costs { step: 0.0, row: 1.0, decode: 0.0 };

fn steps(calls: Vec<Call>) -> Vec<Vec<String>> {
    calls.into_iter().filter_map(|call| if let Call::Step(prompts) = call { Some(prompts) } else { None }).collect()
}

fn setup(costs: Costs) -> Setup {
    Setup { costs, ..Setup::default() }
}

fn body(prompt: &str, steps: u32) -> serde_json::Value {
    json!({"prompt": prompt, "num_inference_steps": steps, "preview_every": 0})
}

#[tokio::test]
async fn where_rows_bring_nothing_the_shortest_job_goes_first_and_alone() {
    let mut studio = Studio::gated(setup(LARGE_ON_A_CPU)).await;
    let long = studio.submit(many_steps("long")).await;
    assert_eq!(studio.next_step().await, ["long"]);
    let mut shorter = Vec::new();
    // "middle" waits at the gate until "short" is there, and ageing counts that wait: it needs much more.
    for (prompt, steps) in [("middle", 100), ("short", 14)] {
        shorter.push(studio.submit_in_company(body(prompt, steps)).await);
    }
    // Steps take no time here: those that come late could find all done.
    studio.until_sent().await;
    studio.open_gate();
    for job in [shorter[1], shorter[0], long] {
        assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
    }
    let steps = steps(studio.close().await);
    let last = |prompt: &str| steps.iter().rposition(|prompts| prompts.contains(&prompt.to_owned())).unwrap();
    assert!(last("short") < last("middle") && last("middle") < last("long"), "{steps:?}");
    let shared = steps.iter().filter(|prompts| prompts.len() > 1).count();
    let looks_again = steps.len() / 128;
    assert!((2..=2 + looks_again).contains(&shared), "it takes two steps to find out that two at a time are no faster: {steps:?}");
}

#[tokio::test]
async fn where_rows_pay_all_go_together_as_soon_as_it_is_known_what_one_takes() {
    let mut studio = Studio::gated(Setup::default()).await;
    studio.submit(many_steps("a")).await;
    assert_eq!(studio.next_step().await, ["a"]);
    for prompt in ["b", "c", "d"] {
        studio.submit_in_company(many_steps(prompt)).await;
    }
    studio.let_one_step_through();
    studio.gather(4).await;
    for _ in 0..5 {
        studio.let_one_step_through();
        assert_eq!(studio.next_step().await.len(), 4);
    }
}

#[tokio::test]
async fn sizes_share_the_devices_time_and_not_its_steps() {
    let mut studio = Studio::gated(setup(LARGE_ON_A_CPU)).await;
    studio.submit(body("small", 150)).await;
    studio.next_step().await;
    let large = json!({"prompt": "large", "num_inference_steps": 150, "width": 128, "height": 128});
    let large = studio.submit_in_company(large).await;
    studio.let_one_step_through();
    studio.step_until(|prompts| prompts == ["large"]).await;
    studio.open_gate();
    assert_eq!(studio.end_of(large).await.job.status, JobStatus::Succeeded);
    let steps = steps(studio.close().await);
    // A large step takes as long as four small ones.
    let turns: Vec<&str> = steps.iter().map(|prompts| prompts[0].as_str()).take(120).collect();
    let small = turns.iter().filter(|&&prompt| prompt == "small").count();
    assert!((90..=100).contains(&small), "{turns:?}");
}

#[tokio::test]
async fn pictures_go_through_the_vae_one_by_one_between_the_steps_of_others() {
    let mut studio = Studio::gated(setup(Costs { decode: 5.0, ..Costs::default() })).await;
    studio.submit(many_steps("long")).await;
    for _ in 0..2 {
        studio.next_step().await;
        studio.let_one_step_through();
    }
    studio.next_step().await;
    let four = studio.submit_in_company(json!({"prompt": "four", "num_inference_steps": 3, "num_images": 4})).await;
    // Steps take no time here: "long" could be done before it is there.
    studio.until_sent().await;
    studio.open_gate();
    assert_eq!(studio.end_of(four).await.job.images.len(), 4);
    let calls = studio.close().await;
    let first = calls.iter().position(|call| matches!(call, Call::Finish(_))).unwrap();
    let (finish, step) = (Call::Finish(vec!["four".to_owned()]), Call::Step(vec!["long".to_owned()]));
    let between: Vec<Call> = (0..4).flat_map(|_| [finish.clone(), step.clone()]).collect();
    assert_eq!(calls[first..first + 8], between);
}

#[tokio::test]
async fn everybody_is_told_when_the_pictures_will_be_there() {
    let mut setup = setup(Costs { step: 200.0, row: 50.0, decode: 400.0 });
    setup.settings.max_canvases = 1;
    let mut studio = Studio::gated(setup).await;
    let nobody_knows = studio.dispatcher.submit(submission(body("first", 14)), &Origin::default()).await.unwrap().view;
    assert_eq!(nobody_knows.eta_seconds, None, "nothing was measured yet");
    let mut events = studio.dispatcher.subscribe(nobody_knows.job.id).events;
    for _ in 0..10 {
        studio.next_step().await;
        studio.let_one_step_through();
    }
    let waits = loop {
        if let Event::Progress(progress) = events.recv().await.unwrap().event
            && progress.step == 10
        {
            break progress.eta_seconds;
        }
    };
    // Four steps of 300 s; decodes were not seen yet. Some real time has passed, beside which those are long.
    assert!((1100.0..=1200.0).contains(&waits), "{waits}");
    let second = studio.dispatcher.submit(submission(body("second", 20)), &Origin::default()).await.unwrap().view;
    let eta = second.eta_seconds.unwrap();
    assert!((7100.0..=7200.0).contains(&eta), "behind the first, 20 steps: {eta}");
    studio.open_gate();
    let seen = studio.end_of(second.job.id).await;
    assert_eq!((seen.job.status, seen.eta_seconds), (JobStatus::Succeeded, None));
    assert_eq!(studio.metrics.estimate_ratio.get_sample_count(), 1, "of the job of which something was expected");
}

#[tokio::test]
async fn a_full_queue_says_when_it_will_have_a_place() {
    let mut setup = setup(Costs { step: 100.0, row: 0.0, decode: 0.0 });
    (setup.settings.max_canvases, setup.settings.max_queued_jobs) = (1, 1);
    let mut studio = Studio::gated(setup).await;
    let running = studio.submit(body("running", 30)).await;
    // The gate lets no canvas go farther than this: steps go on, and there are always fifteen left, of 100 s each.
    for _ in 0..15 {
        studio.next_step().await;
        studio.let_one_step_through();
    }
    studio.next_step().await;
    studio.submit(body("waiting", 5)).await;
    // What waits is known when the claimer has looked, and what follows from it at the next boundary.
    let mut said = Duration::ZERO;
    let told = async {
        while !(1400..=1501).contains(&said.as_secs()) {
            studio.let_one_step_through();
            studio.next_step().await;
            let refused = studio.dispatcher.submit(submission(body("third", 5)), &Origin::default()).await;
            let Err(DispatchError::QueueFull { retry_after }) = refused else { panic!("{refused:?}") };
            said = retry_after;
        }
    };
    let is_told = timeout(PATIENCE, told).await.is_ok();
    assert!(is_told, "{said:?} where 1500 s are left");
    studio.dispatcher.cancel(&Owner::anonymous(), running).await.unwrap();
    studio.open_gate();
}

#[tokio::test]
async fn a_job_that_cannot_keep_its_deadline_is_refused() {
    let mut studio = Studio::gated(setup(Costs { step: 300.0, row: 0.0, decode: 0.0 })).await;
    studio.submit(body("running", 30)).await;
    for _ in 0..3 {
        studio.next_step().await;
        studio.let_one_step_through();
    }
    studio.next_step().await;
    let with_deadline =
        |seconds: u32| submission(json!({"prompt": "a house", "num_inference_steps": 10, "deadline_seconds": seconds}));
    let refused = studio.dispatcher.submit(with_deadline(2000), &Origin::default()).await;
    let Err(DispatchError::DeadlineUnreachable { deadline: 2000, seconds, retry_after }) = refused else { panic!("{refused:?}") };
    // Ten steps of 300 s, after the one that is being made.
    assert!((3200.0..=3300.0).contains(&seconds) && (1200..=1300).contains(&retry_after.as_secs()), "{seconds} s, {retry_after:?}");
    studio.dispatcher.submit(with_deadline(4000), &Origin::default()).await.unwrap();
    studio.open_gate();
}

#[tokio::test]
async fn a_job_whose_deadline_passes_while_it_is_painted_takes_no_more_time() {
    let studio = Studio::open(setup(Costs { step: 3000.0, row: 0.0, decode: 0.0 })).await;
    let job = studio.submit(json!({"prompt": "a house", "num_inference_steps": 50, "deadline_seconds": 60_000})).await;
    let job = studio.end_of(job).await.job;
    let error = job.error.as_ref().unwrap();
    assert_eq!((job.status, error.code.as_str()), (JobStatus::Failed, "deadline_exceeded"));
    assert_eq!(error.message, "the job was not done within 60000 s, its deadline_seconds");
    let steps = steps(studio.close().await).len();
    assert!((19..=20).contains(&steps), "{steps} steps of 3,000 s");
}

#[tokio::test]
async fn a_job_that_has_done_its_last_step_in_time_is_finished() {
    let studio = Studio::open(setup(Costs { step: 3.0, row: 0.0, decode: 90.0 })).await;
    let job = studio.submit(json!({"prompt": "a house", "num_inference_steps": 5, "deadline_seconds": 60})).await;
    assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
}
