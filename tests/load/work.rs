//! The jobs of a run, and their clients.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

const PROMPTS: [&str; 6] = [
    "a purple cat in the snow",
    "a big pink heart in a meadow",
    "an orange boat at sunset",
    "a teal robot to the left of a black cactus in the desert",
    "two yellow stars above a small green house",
    "a red mushroom under the stars",
];
const SCHEDULERS: [&str; 5] = ["ddim", "euler", "dpmpp_2m", "euler_karras", "dpmpp_2m_karras"];

/// Job `index` of a run: prompts, steps, schedulers, guidance, img2img and numbers of pictures all differ, the same in every run.
pub(crate) fn request(index: usize) -> Value {
    let guidance_scale = [5.0, 1.0, 7.5, 4.0][index % 4];
    let mut body = json!({
        "prompt": PROMPTS[index % PROMPTS.len()],
        "scheduler": SCHEDULERS[index % SCHEDULERS.len()],
        "num_inference_steps": 12 + index * 7 % 17,
        "guidance_scale": guidance_scale,
        "num_images": if index % 10 == 3 { 3 } else { 1 },
        "seed": index,
    });
    if index % 5 == 2 {
        let picture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/init-house.png");
        body["image"] = json!(STANDARD.encode(std::fs::read(picture).unwrap()));
        body["strength"] = json!(0.6);
    }
    body
}

/// Waits until the job has ended, however often the server goes away meanwhile; answers the job.
pub(crate) async fn wait_for_end(client: &reqwest::Client, job: &str) -> Value {
    for _ in 0..6000 {
        if let Some(job) = get(client, job).await
            && matches!(job["status"].as_str(), Some("succeeded" | "failed" | "cancelled"))
        {
            return job;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{job} did not end within five minutes");
}

async fn get(client: &reqwest::Client, url: &str) -> Option<Value> {
    client.get(url).send().await.ok()?.json().await.ok()
}

/// The SHA-256 of each picture of a job that has succeeded.
pub(crate) fn pictures(job: &Value) -> Vec<&str> {
    job["images"].as_array().unwrap().iter().map(|image| image["sha256"].as_str().unwrap()).collect()
}
