//! A device that is told what to do and not waited for, as a GPU is: its time is not that of the thread that tells it.

use easel::domain::{Event, JobStatus, Origin};
use serde_json::json;

use super::{Call, Clock, Costs, Setup, Studio, many_steps, submission, until};

fn late(costs: Costs) -> Setup {
    Setup { costs, clock: Clock::new(true), ..Setup::default() }
}

fn body(prompt: &str, steps: u32) -> serde_json::Value {
    json!({"prompt": prompt, "num_inference_steps": steps, "preview_every": 0})
}

#[tokio::test]
async fn sizes_share_the_time_of_a_device_that_answers_late() {
    let mut studio = Studio::gated(late(Costs { step: 0.0, row: 1.0, decode: 0.0 })).await;
    studio.submit(body("small", 150)).await;
    studio.next_step().await;
    let mut large = body("large", 150);
    (large["width"], large["height"]) = (json!(128), json!(128));
    let large = studio.submit_in_company(large).await;
    studio.let_one_step_through();
    studio.step_until(|prompts| prompts == ["large"]).await;
    studio.open_gate();
    assert_eq!(studio.end_of(large).await.job.status, JobStatus::Succeeded);
    let small = studio.metrics.step_estimate_seconds.with_label_values(&["counter", "2"]).get();
    assert!((small - 2.0).abs() < 1e-6, "a small call takes 2 s and not the 8 s of the large one before it: {small}");
    let calls = studio.close().await;
    let turns: Vec<_> =
        calls.iter().filter_map(|call| if let Call::Step(prompts) = call { Some(&*prompts[0]) } else { None }).collect();
    let small = turns.iter().take(120).filter(|&&prompt| prompt == "small").count();
    assert!((90..=100).contains(&small), "a large call takes as long as four small ones: {turns:?}");
}

#[tokio::test]
async fn a_device_that_answers_late_is_told_one_call_ahead_however_many_sizes_there_are() {
    let mut studio = Studio::closed(late(Costs { step: 5.0, ..Costs::default() })).await;
    let mut jobs = Vec::new();
    for side in [64, 72, 80, 88, 96] {
        let mut job = many_steps("a house");
        (job["width"], job["height"]) = (json!(side), json!(side));
        jobs.push(studio.submit(job).await);
    }
    studio.load();
    studio.open_gate();
    for job in jobs {
        assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded, "the engine fails whoever tells it more");
    }
}

#[tokio::test]
async fn what_a_device_that_answers_late_has_still_to_do_is_part_of_what_everybody_is_told() {
    let mut setup = late(Costs { step: 200.0, row: 50.0, decode: 400.0 });
    setup.settings.max_canvases = 1;
    let mut studio = Studio::gated(setup).await;
    let first = studio.submit(body("first", 14)).await;
    let mut events = studio.dispatcher.subscribe(first).events;
    for _ in 0..10 {
        studio.next_step().await;
        studio.let_one_step_through();
    }
    let (told, waits) = loop {
        if let Event::Progress(progress) = events.recv().await.unwrap().event
            && progress.step == 10
        {
            break (progress.step, progress.eta_seconds);
        }
    };
    // The device has done eight of those ten steps of 300 s: the ninth is the one that it does, the tenth is what it does next.
    assert!((1700.0..=1800.0).contains(&waits), "{told} steps told: {waits}");
    studio.open_gate();
    studio.end_of(first).await;
    // When nobody wants it any more, it is waited for: what it did last is known before the next one comes.
    until(async || studio.metrics.step_seconds.get_sample_count() == 14).await;
    let second = studio.dispatcher.submit(submission(body("second", 20)), &Origin::default()).await.unwrap().view;
    let eta = second.eta_seconds.unwrap();
    assert!((6390.0..=6500.0).contains(&eta), "20 steps of 300 s and a decode of 400 s: {eta}");
    studio.end_of(second.job.id).await;
}

#[tokio::test]
async fn a_job_that_waits_begins_while_the_device_still_decodes_the_one_before() {
    let mut setup = late(Costs { step: 1.0, row: 0.0, decode: 900.0 });
    setup.settings.max_canvases = 1;
    let clock = setup.clock.clone();
    let mut studio = Studio::closed(setup).await;
    let first = studio.submit(body("first", 3)).await;
    let second = studio.submit(body("second", 3)).await;
    studio.load();
    studio.step_until(|prompts| prompts == ["second"]).await;
    assert!(clock.passed() < 10.0, "{} s, and the decode takes 900", clock.passed());
    studio.open_gate();
    for job in [first, second] {
        assert_eq!(studio.end_of(job).await.job.status, JobStatus::Succeeded);
    }
    // Nobody wants anything any more.
    until(async || clock.passed() > 900.0).await;
}
