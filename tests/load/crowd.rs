//! 200 readers of event streams and 5,000 resting connections: what they cost the server, and whether they slow any job.
//!
//! Rounds without and with the crowd take turns, in the order that cancels a drift of the machine, and paint the same jobs.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    readers::{Reader, resting, still_open},
    server::{Server, free_port},
    vitals::Vitals,
    work::{request, wait_for_end},
};

const READERS: usize = 200;
const RESTING: usize = 5000;
const PAIRS: usize = 6;
/// Descriptors that this process needs.
const DESCRIPTORS: u64 = 8192;
const STEPS: u32 = 60;
const LOOK: Duration = Duration::from_secs(5);
const SETTINGS: [(&str, &str); 1] = [("EASEL__SERVER__IDLE_TIMEOUT_SECONDS", "3600")];

pub(crate) async fn run() {
    let limit = rlimit::increase_nofile_limit(DESCRIPTORS).unwrap();
    assert!(limit >= DESCRIPTORS, "this run needs {DESCRIPTORS} file descriptors, and the limit (ulimit -Hn) is {limit}");
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), free_port(), &SETTINGS).await;
    let http = reqwest::Client::new();
    // The first jobs are slower: memory is being taken.
    round(&server, &http, 4, None).await;
    rest_alone(&server).await;
    for jobs in [1, 10] {
        compare(&server, &http, jobs).await;
    }
}

/// What resting connections take while nothing else happens.
async fn rest_alone(server: &Server) {
    let before = Vitals::of(server.id());
    let connections = resting(server.address(), RESTING).await;
    let opened = Vitals::of(server.id());
    tokio::time::sleep(LOOK).await;
    let after = Vitals::of(server.id());
    println!(
        "{RESTING} resting connections: {:.1} MiB more resident memory ({:.1} KiB each), {:.2} % of a core while they rest",
        after.rss_mib - before.rss_mib,
        (after.rss_mib - before.rss_mib) * 1024.0 / RESTING as f64,
        (after.cpu_seconds - opened.cpu_seconds) / LOOK.as_secs_f64() * 100.0,
    );
    assert_eq!(still_open(&connections), RESTING);
}

/// The same jobs with and without the crowd.
async fn compare(server: &Server, http: &reqwest::Client, jobs: usize) {
    let mut ratios = Vec::new();
    for pair in 0..PAIRS {
        let mut means = [0.0; 2];
        for place in 0..2 {
            let with_crowd = (pair + place) % 2;
            means[with_crowd] = if with_crowd == 1 {
                let connections = resting(server.address(), RESTING).await;
                let mean = round(server, http, jobs, Some(READERS)).await;
                assert_eq!(still_open(&connections), RESTING);
                mean
            } else {
                round(server, http, jobs, None).await
            };
        }
        ratios.push(means[1] / means[0]);
        println!("{jobs} jobs at a time: {:.3} s a job without, {:.3} s with the crowd", means[0], means[1]);
    }
    ratios.sort_by(f64::total_cmp);
    let median = (ratios[(PAIRS - 1) / 2] + ratios[PAIRS / 2]) / 2.0;
    println!(
        "{jobs} jobs at a time, {READERS} readers and {RESTING} resting connections: a job takes {median:.3} times as long (median of \
         {PAIRS} pairs, {:.3} to {:.3}); {:.0} MiB resident",
        ratios[0],
        ratios[PAIRS - 1],
        Vitals::of(server.id()).rss_mib
    );
}

/// Paints jobs that all begin together, watched by so many readers in all; answers the mean seconds from a job's claim to its end.
async fn round(server: &Server, http: &reqwest::Client, jobs: usize, readers: Option<usize>) -> f64 {
    set_queue(server, http, "pause").await;
    let mut accepted = Vec::new();
    for index in 0..jobs {
        let mut body = request(10 * index);
        body["num_inference_steps"] = json!(STEPS);
        let answer = http.post(format!("{}/v1/generate", server.url)).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 202);
        accepted.push(answer.json::<Value>().await.unwrap());
    }
    let mut attached = Vec::new();
    for reader in 0..readers.unwrap_or_default() {
        let path = accepted[reader % jobs]["urls"]["events"].as_str().unwrap();
        attached.push(Reader::attach(server.address(), path).await);
    }
    let before = Vitals::of(server.id());
    set_queue(server, http, "resume").await;
    let mut seconds = Vec::new();
    for job in &accepted {
        let job = wait_for_end(http, &format!("{}{}", server.url, job["urls"]["self"].as_str().unwrap())).await;
        assert_eq!(job["status"], "succeeded", "{job}");
        seconds.push(seconds_between(&job["started_at"], &job["finished_at"]));
    }
    let mut bytes = 0;
    for reader in attached {
        bytes += reader.end().await;
    }
    let cpu = Vitals::of(server.id()).cpu_seconds - before.cpu_seconds;
    let mib = bytes as f64 / f64::from(1 << 20);
    println!("  {} readers got {mib:.1} MiB; the server took {cpu:.2} s of CPU", readers.unwrap_or_default());
    seconds.iter().sum::<f64>() / jobs as f64
}

async fn set_queue(server: &Server, http: &reqwest::Client, what: &str) {
    let answer = http.post(format!("{}/v1/queue/{what}", server.url)).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

fn seconds_between(from: &Value, to: &Value) -> f64 {
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    time(to).duration_since(time(from)).as_secs_f64()
}
