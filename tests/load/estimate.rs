//! How right the estimates are: when jobs were expected to end, as they were told at their POST and on their way, and when they did.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    server::{Server, free_port},
    work::request,
};

const WARM_UP: usize = 24;
/// Jobs of each load.
const JOBS: usize = 40;
/// Clients that each send the next job when they have got the last.
const CLIENTS: [usize; 3] = [1, 4, 10];
/// Seconds between two jobs that come whatever the server does.
const PERIOD: f64 = 1.0;
/// When estimates are taken: at the POST, and at these parts of the steps.
const PARTS: [f64; 2] = [0.25, 0.5];

/// The relative errors of one job's estimates: at its POST, and at each of [`PARTS`].
type Errors = [Option<f64>; 3];

pub(crate) async fn run() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), free_port(), &[]).await;
    closed(&server.url, 4, WARM_UP).await;
    for clients in CLIENTS {
        print(&format!("{clients} clients"), &closed(&server.url, clients, JOBS).await);
    }
    print("all at once", &closed(&server.url, JOBS, JOBS).await);
    print(&format!("one every {PERIOD} s"), &open(&server.url).await);
}

/// Mixed jobs of three sizes.
fn mixed(index: usize) -> Value {
    let mut body = request(index);
    if body.get("image").is_none() {
        (body["width"], body["height"]) =
            [(json!(128), json!(128)), (json!(192), json!(128)), (json!(96), json!(96))][index / 2 % 3].clone();
    }
    body["preview_every"] = json!(0);
    body
}

async fn closed(url: &str, clients: usize, jobs: usize) -> Vec<Errors> {
    let mut running = JoinSet::new();
    for client in 0..clients {
        let url = url.to_owned();
        running.spawn(async move {
            let mut errors = Vec::new();
            for index in (client..jobs).step_by(clients) {
                errors.push(paint(&url, index).await);
            }
            errors
        });
    }
    running.join_all().await.into_iter().flatten().collect()
}

async fn open(url: &str) -> Vec<Errors> {
    let mut running = JoinSet::new();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(PERIOD));
    for index in 0..JOBS {
        ticks.tick().await;
        let url = url.to_owned();
        running.spawn(async move { paint(&url, index).await });
    }
    running.join_all().await
}

/// Paints one job, and answers how far off each estimate was.
async fn paint(url: &str, index: usize) -> Errors {
    let http = reqwest::Client::new();
    let start = Instant::now();
    let job: Value = http.post(format!("{url}/v1/generate")).json(&mixed(index)).send().await.unwrap().json().await.unwrap();
    let mut estimates = [job["eta_seconds"].as_f64().map(|eta| (0.0, eta)), None, None];
    let path = job["urls"]["events"].as_str().unwrap();
    let mut events = http.get(format!("{url}{path}")).send().await.unwrap();
    let mut text = String::new();
    while let Some(chunk) = events.chunk().await.unwrap() {
        text += std::str::from_utf8(&chunk).unwrap();
        while let Some((event, rest)) = text.split_once("\n\n") {
            note(event, start, &mut estimates);
            text = rest.to_owned();
        }
    }
    let end = start.elapsed().as_secs_f64();
    estimates.map(|estimate| estimate.map(|(then, eta)| (eta - (end - then)) / (end - then)))
}

/// Takes the estimate of a progress event, if it is the first of its part.
fn note(event: &str, start: Instant, estimates: &mut [Option<(f64, f64)>; 3]) {
    let Some(data) = event.split_once("event: progress\ndata: ").map(|(_, data)| serde_json::from_str::<Value>(data).unwrap())
    else {
        return;
    };
    let number = |name: &str| data[name].as_f64().unwrap();
    let part = number("step") / number("num_inference_steps");
    for (place, least) in (1..).zip(PARTS) {
        if part >= least && estimates[place].is_none() {
            estimates[place] = Some((start.elapsed().as_secs_f64(), number("eta_seconds")));
        }
    }
}

fn print(load: &str, jobs: &[Errors]) {
    for (place, when) in ["at the POST", "at 25 %", "at 50 %"].into_iter().enumerate() {
        let mut errors: Vec<f64> = jobs.iter().filter_map(|errors| errors[place]).collect();
        errors.sort_by(f64::total_cmp);
        let bias = errors.get(errors.len() / 2).copied().unwrap_or(f64::NAN);
        errors.iter_mut().for_each(|error| *error = error.abs());
        errors.sort_by(f64::total_cmp);
        let at = |part: usize| errors.get(errors.len() * part / 100).copied().unwrap_or(f64::NAN) * 100.0;
        println!(
            "{load}, {when}: {} of {} jobs had an estimate; off by {:.1} % (median), {:.1} % (p90); median of the signed error {:+.1} %",
            errors.len(),
            jobs.len(),
            at(50),
            at(90),
            bias * 100.0
        );
    }
}
