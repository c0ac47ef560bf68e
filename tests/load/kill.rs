//! `kill -9`, ten times, more than half of them in the middle of posts, while the jobs of earlier posts are painted: each job that was accepted ends
//! `succeeded`, once, with the bytes of an undisturbed run.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    server::{Server, free_port},
    work::{pictures, request, wait_for_end},
};

const CLIENTS: usize = 6;
const KILLS: usize = 10;
/// One a client and kill.
const JOBS: usize = CLIENTS * KILLS;
/// How often a job is posted at most; a server that was killed is back long before.
const POSTS: usize = 600;
const SETTINGS: [(&str, &str); 1] = [("EASEL__DISPATCH__MAX_ATTEMPTS", "100")];

/// What the clients and the killer know of each other.
#[derive(Default)]
struct Traffic {
    begun: AtomicUsize,
    ended: AtomicUsize,
    /// The jobs that were answered 202: the number of the request and the job's URL.
    accepted: Mutex<Vec<(usize, String)>>,
}

pub(crate) async fn run() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let (traffic, (volleys, volley)) = (Arc::<Traffic>::default(), watch::channel(0));
    let mut server = Server::start(folder.path(), port, &SETTINGS).await;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(post_jobs(server.url.clone(), client, traffic.clone(), volley.clone()));
    }
    let mut in_posts = 0;
    for kill in 1..=KILLS {
        // Between steps and writes of the jobs so far, wherever it falls.
        tokio::time::sleep(Duration::from_millis(400 + 170 * kill as u64)).await;
        let begun = traffic.begun.load(SeqCst);
        volleys.send(kill).unwrap();
        let in_flight = traffic.reach_the_middle(begun, Duration::from_micros(500 * kill as u64)).await;
        server.kill();
        in_posts += usize::from(in_flight > 0);
        println!("kill {kill}: {in_flight} posts in flight, {} jobs accepted", traffic.accepted.lock().unwrap().len());
        server = Server::start(folder.path(), port, &SETTINGS).await;
    }
    clients.join_all().await;
    // A busy machine may answer all six posts before the killer has its turn; then that kill proves nothing about posts.
    assert!(in_posts > KILLS / 2, "only {in_posts} kills met posts in flight");
    let jobs = ends(&traffic).await;
    server.kill();
    report(&jobs, &undisturbed().await);
}

impl Traffic {
    /// Waits until every client has begun to post, and then for `patience`, but not until half of them have their answer. Answers how
    /// many posts are in flight.
    async fn reach_the_middle(&self, begun_before: usize, patience: Duration) -> usize {
        while self.begun.load(SeqCst) < begun_before + CLIENTS {
            tokio::task::yield_now().await;
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && self.in_flight() > CLIENTS / 2 {
            tokio::task::yield_now().await;
        }
        self.in_flight()
    }

    fn in_flight(&self) -> usize {
        let ended = self.ended.load(SeqCst);
        self.begun.load(SeqCst) - ended
    }
}

/// Brings one job with each volley. A post without an answer may or may not have been accepted; it is posted again, as another job.
async fn post_jobs(url: String, client: usize, traffic: Arc<Traffic>, mut volley: watch::Receiver<usize>) {
    let http = reqwest::Client::new();
    for round in 1..=KILLS {
        volley.wait_for(|volley| *volley >= round).await.unwrap();
        let index = (round - 1) * CLIENTS + client;
        let job = bring(&http, &url, index, &traffic).await;
        traffic.accepted.lock().unwrap().push((index, job));
    }
}

/// Posts a job until it is accepted; answers its URL.
async fn bring(http: &reqwest::Client, url: &str, index: usize, traffic: &Traffic) -> String {
    for _ in 0..POSTS {
        traffic.begun.fetch_add(1, SeqCst);
        let answer = http.post(format!("{url}/v1/generate")).json(&request(index)).send().await;
        traffic.ended.fetch_add(1, SeqCst);
        if let Ok(answer) = answer
            && answer.status() == 202
        {
            return format!("{url}{}", answer.headers()["location"].to_str().unwrap());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no server accepted job {index} within a minute");
}

async fn ends(traffic: &Traffic) -> Vec<(usize, Value)> {
    let http = reqwest::Client::new();
    let accepted = traffic.accepted.lock().unwrap().clone();
    let mut jobs = Vec::new();
    for (index, url) in accepted {
        jobs.push((index, wait_for_end(&http, &url).await));
    }
    jobs
}

/// The same requests on a server that nobody kills.
async fn undisturbed() -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), free_port(), &SETTINGS).await;
    let http = reqwest::Client::new();
    let mut urls = Vec::new();
    for index in 0..JOBS {
        let answer = http.post(format!("{}/v1/generate", server.url)).json(&request(index)).send().await.unwrap();
        urls.push(format!("{}{}", server.url, answer.headers()["location"].to_str().unwrap()));
    }
    let mut jobs = Vec::new();
    for url in urls {
        jobs.push(wait_for_end(&http, &url).await);
    }
    jobs
}

fn report(jobs: &[(usize, Value)], undisturbed: &[Value]) {
    let lost: Vec<&Value> = jobs.iter().map(|(_, job)| job).filter(|job| job["status"] != "succeeded").collect();
    assert!(lost.is_empty(), "jobs that did not succeed: {lost:?}");
    let different = jobs.iter().filter(|(index, job)| pictures(job) != pictures(&undisturbed[*index])).count();
    let rerun = jobs.iter().filter(|(_, job)| job["attempts"].as_u64() > Some(1)).count();
    println!(
        "{} accepted jobs, all succeeded; {rerun} of them ran more than once; {different} with other bytes than undisturbed",
        jobs.len()
    );
    assert_eq!((jobs.len(), different), (JOBS, 0));
}
