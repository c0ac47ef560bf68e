//! The highest load that the queue accepts, for as long as is asked for: every kind of job and client side by side, with the server's
//! memory, descriptors and files watched.

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    leftovers::{self, Leftovers},
    server::{Server, free_port},
    soak_client::{self, Tally},
    vitals::Vitals,
};

/// More than the queue and the device take together, so that the queue is always full.
const CLIENTS: usize = 64;
/// Results are kept for less than the run takes, so that they are removed under load.
const SETTINGS: [(&str, &str); 3] = [
    ("EASEL__DISPATCH__MAX_QUEUED_JOBS", "32"),
    ("EASEL__RETENTION__CHECK_SECONDS", "10"),
    ("EASEL__RETENTION__RESULT_SECONDS", "240"),
];
const SAMPLE: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(300);
/// Full load before anything is measured, so that the first minutes are no ramp.
const WARM_UP: Duration = Duration::from_secs(120);

pub(crate) async fn run(minutes: u64) {
    let (folder, length) = (tempfile::tempdir().unwrap(), Duration::from_secs(60 * minutes));
    let server = Server::start(folder.path(), free_port(), &SETTINGS).await;
    soak_client::one_of_each(&server.url).await;
    let start = at_rest(&server).await;
    println!("at rest: {:.0} MiB, {} descriptors", start.rss_mib, start.descriptors);
    let (tally, begun) = (Arc::<Tally>::default(), Instant::now() + WARM_UP);
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(soak_client::run(server.url.clone(), client, begun + length, tally.clone()));
    }
    tokio::time::sleep(WARM_UP).await;
    let samples = watch(&server, begun, length, &tally).await;
    clients.join_all().await;
    report(&samples, length);
    let end = at_rest(&server).await;
    let left = leftovers::find(&server.url, folder.path()).await;
    conclude(&tally, (start, end), &left, folder.path());
}

/// The server when nobody but this look is connected.
async fn at_rest(server: &Server) -> Vitals {
    for _ in 0..600 {
        let metrics = reqwest::get(format!("{}/metrics", server.url)).await.unwrap().text().await.unwrap();
        if metrics.contains("easel_connections 1\n") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The look's own connection ends, too.
    tokio::time::sleep(Duration::from_secs(1)).await;
    Vitals::of(server.id())
}

async fn watch(server: &Server, begun: Instant, length: Duration, tally: &Tally) -> Vec<(Duration, Vitals)> {
    let mut samples = Vec::new();
    let mut ticks = tokio::time::interval(SAMPLE);
    while begun.elapsed() < length {
        ticks.tick().await;
        let vitals = Vitals::of(server.id());
        samples.push((begun.elapsed(), vitals));
        println!(
            "{:5.0} s: {:.1} MiB, {} descriptors, {:.0} s of CPU; {} jobs accepted, {} turned away, {} errors",
            begun.elapsed().as_secs_f64(),
            vitals.rss_mib,
            vitals.descriptors,
            vitals.cpu_seconds,
            tally.accepted.load(Relaxed),
            tally.turned_away.load(Relaxed),
            tally.errors.lock().unwrap().len(),
        );
    }
    samples
}

/// Compares the first and the last minutes; of a short run, its first and last third.
fn report(samples: &[(Duration, Vitals)], length: Duration) {
    let window = WINDOW.min(length / 3);
    let mean = |wanted: &dyn Fn(Duration) -> bool| {
        let rss: Vec<f64> = samples.iter().filter(|(at, _)| wanted(*at)).map(|(_, vitals)| vitals.rss_mib).collect();
        rss.iter().sum::<f64>() / rss.len() as f64
    };
    let (first, last) = (mean(&|at| at <= window), mean(&|at| at >= length - window));
    println!(
        "resident memory: {first:.1} MiB in the first {:.0} s, {last:.1} MiB in the last ({:+.1} %)",
        window.as_secs_f64(),
        (last / first - 1.0) * 100.0
    );
}

fn conclude(tally: &Tally, (start, end): (Vitals, Vitals), left: &Leftovers, folder: &Path) {
    println!("{tally}");
    println!("descriptors at rest: {} before, {} after", start.descriptors, end.descriptors);
    println!("files: {left}");
    let errors = tally.errors.lock().unwrap();
    for error in errors.iter().take(20) {
        println!("error: {error}");
    }
    assert!(errors.is_empty(), "{} errors", errors.len());
    assert!(left.unowned.is_empty(), "files that no job owns in {}: {:?}", folder.display(), left.unowned);
    assert!(end.descriptors <= start.descriptors, "descriptors are left open");
}
