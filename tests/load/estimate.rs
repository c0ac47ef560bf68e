//! How right the estimates are: when jobs were expected to end, as they were told at their POST and on their way, and when they did. On the
//! demo model, or on another one, whose jobs have fewer steps, so that a large model on a CPU is done within half an hour.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    server::{Server, free_port},
    work::request,
};

/// Clients that each send the next job when they have got the last.
const CLIENTS: [usize; 3] = [1, 4, 10];
/// When estimates are taken: at the POST, and at these parts of the steps.
const PARTS: [f64; 2] = [0.25, 0.5];

/// The relative errors of one job's estimates: at its POST, and at each of [`PARTS`].
type Errors = [Option<f64>; 3];

/// What is asked of a model.
#[derive(Debug, Clone, Copy)]
struct Load {
    /// Jobs before anything is counted.
    warm_up: usize,
    /// Jobs of each load.
    jobs: usize,
    /// Seconds between two jobs that come whatever the server does.
    period: f64,
    /// Pixels of the sizes' unit.
    unit: u64,
    /// By how much a job has fewer steps.
    fewer_steps: u64,
}

const DEMO: Load = Load { warm_up: 24, jobs: 40, period: 1.0, unit: 32, fewer_steps: 1 };
const OTHER: Load = Load { warm_up: 12, jobs: 30, period: 8.0, unit: 64, fewer_steps: 3 };

/// Measures the demo model, or that in the folder.
pub(crate) async fn run(model: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let models = model.map(|path| format!("[{{name=\"other\",path=\"{path}\"}}]"));
    let settings: Vec<_> = models.iter().map(|models| ("EASEL__MODELS", models.as_str())).collect();
    let server = Server::start(folder.path(), free_port(), &settings).await;
    let load = if model.is_some() { OTHER } else { DEMO };
    load.closed(&server.url, 4, load.warm_up).await;
    for clients in CLIENTS {
        print(&format!("{clients} clients"), &load.closed(&server.url, clients, load.jobs).await);
    }
    print("all at once", &load.burst(&server.url).await);
    print(&format!("one every {} s", load.period), &load.open(&server.url).await);
}

impl Load {
    /// Mixed jobs of three sizes.
    fn job(self, index: usize) -> Value {
        let mut body = request(index);
        if body.get("image").is_none() {
            let (width, height) = [(4, 4), (6, 4), (3, 3)][index / 2 % 3];
            (body["width"], body["height"]) = (json!(width * self.unit), json!(height * self.unit));
        }
        body["num_inference_steps"] = json!(body["num_inference_steps"].as_u64().unwrap() / self.fewer_steps);
        body["preview_every"] = json!(0);
        body
    }

    /// Clients that go on until all the jobs that count have ended: the last of them must have the company that the first had. The first job of
    /// each counts for nothing: they come all at once, which is a load of its own.
    async fn closed(self, url: &str, clients: usize, jobs: usize) -> Vec<Errors> {
        let left = Arc::new(AtomicUsize::new(jobs));
        let mut running = JoinSet::new();
        for client in 0..clients {
            let (url, left) = (url.to_owned(), left.clone());
            running.spawn(async move {
                let mut errors = Vec::new();
                for index in (client..).step_by(clients) {
                    let error = paint(&url, &self.job(index)).await;
                    if (clients..clients + jobs).contains(&index) {
                        errors.push(error);
                        left.fetch_sub(1, Ordering::SeqCst);
                    }
                    if left.load(Ordering::SeqCst) == 0 {
                        break;
                    }
                }
                errors
            });
        }
        running.join_all().await.into_iter().flatten().collect()
    }

    /// All at once, and then nobody.
    async fn burst(self, url: &str) -> Vec<Errors> {
        join_all((0..self.jobs).map(|index| async move { paint(url, &self.job(index)).await })).await
    }

    async fn open(self, url: &str) -> Vec<Errors> {
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(self.period));
        let mut running = JoinSet::new();
        let mut counted = Vec::new();
        for index in 0.. {
            ticks.tick().await;
            let url = url.to_owned();
            running.spawn(async move { (index, paint(&url, &self.job(index)).await) });
            while let Some(done) = running.try_join_next() {
                counted.push(done.unwrap());
            }
            if counted.iter().filter(|(index, _)| *index < self.jobs).count() == self.jobs {
                break;
            }
        }
        counted.into_iter().filter(|(index, _)| *index < self.jobs).map(|(_, errors)| errors).collect()
    }
}

/// Paints one job, and answers how far off each estimate was.
async fn paint(url: &str, body: &Value) -> Errors {
    let http = reqwest::Client::new();
    let start = Instant::now();
    let job: Value = http.post(format!("{url}/v1/generate")).json(body).send().await.unwrap().json().await.unwrap();
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
