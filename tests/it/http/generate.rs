//! From a POST to its pictures.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use easel::domain::sha256_hex;
use serde_json::{Value, json};

use crate::support::{TestApp, house_png, house_url, json_of, request, sha256s, spawn_app};

/// What differs from run to run, or from one kind of CPU to another.
macro_rules! assert_job_snapshot {
    ($name:literal, $job:expr) => {
        insta::assert_json_snapshot!($name, $job, {
            ".id" => "[id]",
            ".created_at" => "[time]",
            ".started_at" => insta::dynamic_redaction(redact_time),
            ".finished_at" => insta::dynamic_redaction(redact_time),
            ".timings.queue_ms" => "[ms]",
            ".timings.encode_ms" => "[ms]",
            ".timings.denoise_ms" => "[ms]",
            ".timings.decode_ms" => "[ms]",
            ".timings.store_ms" => "[ms]",
            ".timings.total_ms" => "[ms]",
            ".images[].url" => "[url]/images/0",
            ".images[].bytes" => "[bytes]",
            ".images[].sha256" => "[sha256]",
            ".urls.self" => "[url]",
            ".urls.events" => "[url]/events",
            ".urls.cancel" => "[url]/cancel",
        })
    };
}

/// Null stays null.
fn redact_time(value: insta::internals::Content, _: insta::internals::ContentPath<'_>) -> insta::internals::Content {
    if value.is_nil() { value } else { "[time]".into() }
}

/// The texts of a PNG's iTXt chunks, by keyword.
fn itxt(png: &[u8]) -> Vec<(String, String)> {
    let reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let texts = &reader.info().utf8_text;
    texts.iter().map(|chunk| (chunk.keyword.clone(), chunk.get_text().unwrap())).collect()
}

#[tokio::test]
async fn a_cache_interval_is_echoed_and_makes_a_picture_that_is_close_to_the_exact_one() {
    let app = spawn_app().await;
    let paint = async |interval: u32| {
        let body = json!({"prompt": "a red house", "seed": 7, "num_inference_steps": 12, "width": 128, "height": 128});
        let mut body = request(body);
        body["cache_interval"] = json!(interval);
        let job = app.paint(&body).await;
        assert_eq!(job["request"]["cache_interval"], interval);
        let png = app.get(job["images"][0]["url"].as_str().unwrap()).await.bytes().await.unwrap();
        image::load_from_memory(&png).unwrap().to_rgb8().into_raw()
    };
    let (exact, cached, seldom) = (paint(1).await, paint(2).await, paint(10).await);
    let mean_difference = |picture: &[u8]| {
        let total: u64 = exact.iter().zip(picture).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
        total as f64 / exact.len() as f64
    };
    assert!(cached != exact && mean_difference(&cached) < mean_difference(&seldom), "the fewer whole calls, the further away");
    let answer = app.post(&request(json!({"cache_interval": 0}))).await;
    let problem = json_of(answer, 422).await;
    assert_eq!(problem["errors"][0]["detail"], "must be a whole number from 1 to 10, got 0");
    app.finish().await;
}

#[tokio::test]
async fn a_post_is_answered_at_once_with_the_queued_job_and_where_to_find_it() {
    let (app, go) = TestApp::loading(|_| {}).await;
    let answer = app.post(&request(json!({"num_images": 2, "metadata": {"for": "the wall"}}))).await;
    let location = answer.headers()["location"].to_str().unwrap().to_owned();
    let job = json_of(answer, 202).await;
    assert_eq!(location, format!("/v1/jobs/{}", job["id"].as_str().unwrap()));
    for (name, path) in [("self", ""), ("events", "/events"), ("cancel", "/cancel")] {
        assert_eq!(job["urls"][name], format!("{location}{path}"));
    }
    assert_job_snapshot!("queued", job);
    assert_eq!(app.job(&job).await, job);
    go.send(()).unwrap();
    app.wait(&job).await;
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_prefers_to_wait_gets_the_finished_job() {
    let app = spawn_app().await;
    let post = app.request("POST", "/v1/generate").header("prefer", "wait=50").json(&request(json!({"guidance_scale": 3})));
    let answer = app.send(post).await;
    assert_eq!(answer.headers()["preference-applied"], "wait=50");
    let job = json_of(answer, 200).await;
    assert_job_snapshot!("succeeded", job);
    let timings = |name: &str| job["timings"][name].as_f64().unwrap();
    let stages: f64 = ["queue_ms", "encode_ms", "denoise_ms", "decode_ms", "store_ms"].map(timings).iter().sum();
    assert!(["encode_ms", "denoise_ms", "decode_ms", "store_ms"].map(timings).iter().all(|ms| *ms > 0.0), "{job}");
    assert!(stages <= timings("total_ms"), "{job}");
    assert_eq!(app.job(&job).await, job);
    app.finish().await;
}

#[tokio::test]
async fn a_wait_that_is_over_before_the_job_is_answered_with_the_job_as_it_is() {
    let (app, go) = TestApp::loading(|config| config.server.max_wait_seconds = 1).await;
    let mut jobs = Vec::new();
    for (preference, applied) in [("wait=0", "wait=0"), ("wait=1000", "wait=1")] {
        let answer = app.send(app.request("POST", "/v1/generate").header("prefer", preference).json(&request(json!({})))).await;
        assert_eq!(answer.headers()["preference-applied"], applied);
        assert!(answer.headers().contains_key("location"));
        jobs.push(json_of(answer, 202).await);
    }
    assert!(jobs.iter().all(|job| job["status"] == "queued"), "{jobs:?}");
    drop(go);
    for job in &jobs {
        assert_eq!(app.wait(job).await["status"], "succeeded");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_picture_is_the_file_that_the_job_describes_and_says_what_made_it() {
    let app = spawn_app().await;
    let body = json!({"prompt": "a red house, größer", "negative_prompt": "blue", "height": 72, "guidance_scale": 4.5, "scheduler": "euler"});
    let job = app.paint(&request(body)).await;
    let answer = app.get(job["images"][0]["url"].as_str().unwrap()).await;
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
    let etag = answer.headers()["etag"].clone();
    let file = answer.bytes().await.unwrap();
    assert_eq!(
        (job["images"][0]["bytes"].as_u64(), &job["images"][0]["sha256"]),
        (Some(file.len() as u64), &json!(sha256_hex(&file)))
    );
    let picture = image::load_from_memory_with_format(&file, image::ImageFormat::Png).unwrap().into_rgb8();
    assert_eq!(picture.dimensions(), (64, 72));
    assert!(picture.pixels().any(|pixel| pixel != picture.get_pixel(0, 0)), "a picture of one colour");
    let parameters = "a red house, größer\nNegative prompt: blue\n\
                      Steps: 2, Sampler: euler, CFG scale: 4.5, Seed: 7, Size: 64x72, Model: demo, RNG: CPU";
    assert_eq!(itxt(&file), [("parameters".to_owned(), parameters.to_owned())]);
    let again = app.request("GET", job["images"][0]["url"].as_str().unwrap()).header("if-none-match", etag).send().await.unwrap();
    assert_eq!((again.status().as_u16(), again.bytes().await.unwrap().len()), (304, 0));
    app.finish().await;
}

#[tokio::test]
async fn equal_requests_give_equal_bytes_and_another_seed_gives_others() {
    let app = spawn_app().await;
    let [one, same, other] = [7, 7, 8].map(|seed| request(json!({"seed": seed})));
    let (one, same, other) = (app.paint(&one).await, app.paint(&same).await, app.paint(&other).await);
    assert_eq!(app.picture(&one, 0).await, app.picture(&same, 0).await);
    assert_ne!(one["id"], same["id"]);
    assert_ne!(sha256s(&one), sha256s(&other));
    app.finish().await;
}

#[tokio::test]
async fn philox_noise_paints_another_picture_and_says_so() {
    let app = spawn_app().await;
    let body = |noise_source: &str, seed: u64| request(json!({"noise_source": noise_source, "seed": seed, "num_images": 2}));
    let cpu = app.paint(&body("cpu", 7)).await;
    let philox = app.paint(&body("philox", 7)).await;
    assert_eq!((&cpu["request"]["noise_source"], &philox["request"]["noise_source"]), (&json!("cpu"), &json!("philox")));
    assert_eq!(sha256s(&cpu)[0], sha256s(&app.paint(&request(json!({}))).await)[0], "cpu is not the default");
    assert_ne!(sha256s(&cpu), sha256s(&philox));
    assert!(itxt(&app.picture(&philox, 0).await)[0].1.ends_with("Model: demo, RNG: NV"));
    // Picture 1 is the one of seed 8, and a seed's upper half counts, which PyTorch ignores on the CPU.
    assert_eq!(sha256s(&philox)[1], sha256s(&app.paint(&body("philox", 8)).await)[0]);
    assert_ne!(sha256s(&philox), sha256s(&app.paint(&body("philox", (1 << 32) + 7)).await));
    app.finish().await;
}

#[tokio::test]
async fn a_request_without_a_seed_gets_one_that_paints_the_same_again() {
    let app = spawn_app().await;
    let mut body = request(json!({}));
    body.as_object_mut().unwrap().remove("seed");
    let (one, other) = (app.paint(&body).await, app.paint(&body).await);
    assert_ne!(one["request"]["seed"], other["request"]["seed"]);
    let again = app.paint(&request(json!({"seed": one["request"]["seed"]}))).await;
    assert_eq!(sha256s(&one), sha256s(&again));
    app.finish().await;
}

#[tokio::test]
async fn picture_i_of_several_is_the_one_that_its_seed_paints_alone() {
    let app = spawn_app().await;
    let several = app.paint(&request(json!({"num_images": 3, "seed": 40}))).await;
    let mut alone = Vec::new();
    for (index, seed) in (40..43).enumerate() {
        assert_eq!((&several["images"][index]["seed"], &several["images"][index]["index"]), (&json!(seed), &json!(index)));
        alone.extend(sha256s(&app.paint(&request(json!({"seed": seed}))).await));
    }
    assert_eq!(sha256s(&several), alone);
    app.finish().await;
}

#[tokio::test]
async fn a_picture_to_start_from_may_be_base64_or_a_data_url_and_is_kept_by_its_hash() {
    let app = spawn_app().await;
    let file = house_png();
    let body = |image: String| request(json!({"image": image, "strength": 0.5, "num_inference_steps": 4}));
    let plain = app.paint(&body(STANDARD.encode(&file))).await;
    let url = app.paint(&body(house_url())).await;
    assert_eq!(sha256s(&plain), sha256s(&url));
    let hash = sha256_hex(&file);
    let reference = json!({"sha256": hash, "width": 128, "height": 128, "content_type": "image/png"});
    assert_eq!((&plain["request"]["image"], &plain["request"]["strength"]), (&reference, &json!(0.5)));
    let without = app.paint(&request(json!({"num_inference_steps": 4}))).await;
    assert_ne!(sha256s(&plain), sha256s(&without), "the picture to start from made no difference");
    assert_eq!(std::fs::read(app.folder.path().join("pictures/inputs").join(hash)).unwrap(), file);
    app.finish().await;
}

#[tokio::test]
async fn img2img_takes_its_size_from_the_picture_and_counts_the_steps_that_it_runs() {
    let app = spawn_app().await;
    let body = json!({"prompt": "a house", "image": house_url(), "strength": 0.5, "num_inference_steps": 5, "preview_every": 0});
    let (job, events) = app.submit_watched(&body).await;
    assert_eq!((&job["request"]["width"], &job["request"]["height"]), (&json!(128), &json!(128)));
    let steps = events.all().await.into_iter().filter(|event| event.name == "progress");
    let steps: Vec<Value> = steps.map(|event| json!([event.data["step"], event.data["num_inference_steps"]])).collect();
    // Half of five steps, rounded down.
    assert_eq!(steps, [json!([1, 2]), json!([2, 2])]);
    app.finish().await;
}

#[tokio::test]
async fn what_does_not_fit_into_77_tokens_is_named_in_a_warning() {
    let app = spawn_app().await;
    let body = |prompt: &str| request(json!({"prompt": prompt, "num_inference_steps": 1}));
    let long = format!("{}and a purple umbrella", "a house ".repeat(38));
    let job = app.paint(&body(&long)).await;
    let warnings = job["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 1, "{job}");
    assert!(warnings[0].as_str().unwrap().contains("purple umbrella"), "{job}");
    assert_eq!(job["request"]["prompt"], long);
    assert_eq!(app.paint(&body("a house")).await["warnings"], json!([]));
    app.finish().await;
}
