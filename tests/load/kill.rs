//! `kill -9`, ten times, while clients post sixty jobs: each job that was accepted ends `succeeded`, once, with the bytes of an undisturbed
//! run.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    server::{Server, free_port},
    work::{pictures, request, wait_for_end},
};

const JOBS: usize = 60;
const CLIENTS: usize = 6;
const KILLS: usize = 10;
const SETTINGS: [(&str, &str); 1] = [("EASEL__DISPATCH__MAX_ATTEMPTS", "100")];

/// The jobs that were answered 202: the number of the request and the job's URL.
type Accepted = Arc<Mutex<Vec<(usize, String)>>>;

pub(crate) async fn run() {
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let (accepted, posts) = (Accepted::default(), Arc::new(AtomicUsize::new(0)));
    let mut server = Server::start(folder.path(), port, &SETTINGS).await;
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(post_jobs(server.url.clone(), accepted.clone(), posts.clone()));
    }
    for kill in 1..=KILLS {
        // Between posts, steps and writes, wherever it falls.
        tokio::time::sleep(Duration::from_millis(400 + 170 * kill as u64)).await;
        server.kill();
        println!("kill {kill}: {} posts, {} accepted", posts.load(Ordering::Relaxed), accepted.lock().unwrap().len());
        server = Server::start(folder.path(), port, &SETTINGS).await;
    }
    clients.join_all().await;
    let jobs = ends(&accepted).await;
    server.kill();
    report(&jobs, folder.path(), &undisturbed().await);
}

/// Posts until the run's jobs are accepted. A post without an answer may or may not have been accepted; it is posted again as another job.
async fn post_jobs(url: String, accepted: Accepted, posts: Arc<AtomicUsize>) {
    let http = reqwest::Client::new();
    while accepted.lock().unwrap().len() < JOBS {
        let index = posts.fetch_add(1, Ordering::Relaxed);
        let post = http.post(format!("{url}/v1/generate")).json(&request(index % JOBS)).send().await;
        if let Ok(answer) = post
            && answer.status() == 202
        {
            let location = answer.headers()["location"].to_str().unwrap().to_owned();
            accepted.lock().unwrap().push((index % JOBS, format!("{url}{location}")));
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

async fn ends(accepted: &Accepted) -> Vec<(usize, Value)> {
    let http = reqwest::Client::new();
    let accepted = accepted.lock().unwrap().clone();
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

fn report(jobs: &[(usize, Value)], folder: &Path, undisturbed: &[Value]) {
    let lost: Vec<&Value> = jobs.iter().map(|(_, job)| job).filter(|job| job["status"] != "succeeded").collect();
    assert!(lost.is_empty(), "jobs that did not succeed: {lost:?}");
    let different = jobs.iter().filter(|(index, job)| pictures(job) != pictures(&undisturbed[*index])).count();
    let rerun = jobs.iter().filter(|(_, job)| job["attempts"].as_u64() > Some(1)).count();
    let leftovers = std::fs::read_dir(folder.join("pictures/pictures")).unwrap().count();
    println!(
        "{} accepted jobs, all succeeded; {rerun} of them ran more than once; {different} with other bytes than undisturbed; \
         {leftovers} folders of pictures",
        jobs.len()
    );
    assert_eq!(different, 0);
}
