//! The clients of a soak: each brings one job after the other, as fast as the queue takes them, and deals with it in one of the ways
//! that clients do.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use crate::work::request;

const SIZES: [(u32, u32); 4] = [(128, 128), (64, 64), (192, 128), (128, 256)];
const FORMATS: [(&str, u32); 4] = [("png", 90), ("jpeg", 80), ("webp", 75), ("webp", 100)];
const POLL: Duration = Duration::from_millis(500);

/// What the clients have seen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) accepted: AtomicUsize,
    pub(crate) turned_away: AtomicUsize,
    succeeded: AtomicUsize,
    cancelled: AtomicUsize,
    removed: AtomicUsize,
    /// Everything that a client does not expect.
    pub(crate) errors: Mutex<Vec<String>>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |counter: &AtomicUsize| counter.load(Relaxed);
        write!(
            f,
            "{} jobs accepted: {} succeeded, {} cancelled, {} removed afterwards; {} posts turned away with 429; {} errors",
            count(&self.accepted),
            count(&self.succeeded),
            count(&self.cancelled),
            count(&self.removed),
            count(&self.turned_away),
            self.errors.lock().unwrap().len()
        )
    }
}

type Surprise = Box<dyn std::error::Error + Send + Sync>;

/// One client and its present job.
struct Visitor<'a> {
    http: Client,
    url: &'a str,
    tally: &'a Tally,
}

/// Brings jobs until the deadline, then waits for the last one's end.
pub(crate) async fn run(url: String, client: usize, deadline: Instant, tally: std::sync::Arc<Tally>) {
    let visitor = Visitor { http: Client::new(), url: &url, tally: &tally };
    // Every client goes through all kinds of jobs and ways, each at another place.
    let mut index = 37 * client;
    while Instant::now() < deadline {
        if let Err(error) = visitor.visit(index).await {
            tally.errors.lock().unwrap().push(format!("job {index} of client {client}: {error}"));
        }
        index += 1;
    }
}

/// Each kind of job and way once, side by side, so that what is made only once (a connection to the database, say) is there before
/// anything is measured.
pub(crate) async fn one_of_each(url: &str) {
    let tally = Tally::default();
    let visitor = Visitor { http: Client::new(), url, tally: &tally };
    for visit in futures::future::join_all((0..20).map(|index| visitor.visit(index))).await {
        visit.unwrap();
    }
}

impl Visitor<'_> {
    async fn visit(&self, index: usize) -> Result<(), Surprise> {
        let job = self.bring(&body(index)).await?;
        let path = |name: &str| job["urls"][name].as_str().unwrap_or_default().to_owned();
        let (itself, events) = (path("self"), path("events"));
        match index % 6 {
            0 => drop(expect(self.send(Method::GET, &events).await?, &[200]).await?.bytes().await?),
            1 => drop(expect(self.send(Method::POST, &path("cancel")).await?, &[200, 202, 409]).await?),
            // Looks in for a moment and goes.
            2 => drop(expect(self.send(Method::GET, &events).await?, &[200]).await?.chunk().await?),
            3 => drop(expect(self.send(Method::GET, "/v1/jobs?limit=100").await?, &[200]).await?.bytes().await?),
            _ => {}
        }
        let ended = self.wait(&itself).await?;
        match ended["status"].as_str() {
            Some("succeeded") => self.look_at_pictures(&ended).await?,
            Some("cancelled") if index % 6 == 1 => drop(self.tally.cancelled.fetch_add(1, Relaxed)),
            _ => return Err(format!("unexpected end: {ended}").into()),
        }
        if index % 5 < 3 {
            expect(self.send(Method::DELETE, &itself).await?, &[204]).await?;
            self.tally.removed.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Posts until the queue takes the job, as often as it says.
    async fn bring(&self, body: &Value) -> Result<Value, Surprise> {
        loop {
            let answer = self.http.post(format!("{}/v1/generate", self.url)).json(body).send().await?;
            if answer.status() != 429 {
                self.tally.accepted.fetch_add(1, Relaxed);
                return Ok(expect(answer, &[202]).await?.json().await?);
            }
            self.tally.turned_away.fetch_add(1, Relaxed);
            let seconds: u64 = answer.headers().get("retry-after").ok_or("no Retry-After")?.to_str()?.parse()?;
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }

    async fn wait(&self, path: &str) -> Result<Value, Surprise> {
        loop {
            let job: Value = expect(self.send(Method::GET, path).await?, &[200]).await?.json().await?;
            if !job["finished_at"].is_null() {
                return Ok(job);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn look_at_pictures(&self, job: &Value) -> Result<(), Surprise> {
        self.tally.succeeded.fetch_add(1, Relaxed);
        for image in job["images"].as_array().ok_or("no pictures")? {
            let picture = expect(self.send(Method::GET, image["url"].as_str().unwrap_or_default()).await?, &[200]).await?;
            let bytes = picture.bytes().await?.len();
            self.look_at_thumbnail(image).await?;
            if image["bytes"].as_u64() != Some(bytes as u64) {
                return Err(format!("a picture of {bytes} bytes: {image}").into());
            }
        }
        Ok(())
    }

    /// Made on demand, unless too many others are: then it is only an ornament.
    async fn look_at_thumbnail(&self, image: &Value) -> Result<(), Surprise> {
        let path = format!("{}?width=48", image["url"].as_str().unwrap_or_default());
        expect(self.send(Method::GET, &path).await?, &[200, 503]).await?.bytes().await?;
        Ok(())
    }

    async fn send(&self, method: Method, path: &str) -> reqwest::Result<Response> {
        self.http.request(method, format!("{}{path}", self.url)).send().await
    }
}

async fn expect(answer: Response, statuses: &[u16]) -> Result<Response, Surprise> {
    if statuses.contains(&answer.status().as_u16()) {
        return Ok(answer);
    }
    let (url, status) = (answer.url().clone(), answer.status());
    Err(format!("{url} answered {status}: {}", answer.text().await?).into())
}

/// Job `index`: that of other runs, in several sizes.
fn body(index: usize) -> Value {
    let mut body = request(index);
    if body.get("image").is_none() {
        let (width, height) = SIZES[index / 7 % SIZES.len()];
        (body["width"], body["height"]) = (json!(width), json!(height));
    }
    let (format, quality) = FORMATS[index % FORMATS.len()];
    (body["output_format"], body["output_quality"]) = (json!(format), json!(quality));
    body["priority"] = json!(index % 10);
    body
}
