//! What operators ask for, and what stands at no address.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::support::{Process, TestApp, json_of, request, spawn_app};

#[tokio::test]
async fn the_server_is_alive_before_and_ready_when_its_models_are_loaded() {
    let (app, go) = TestApp::loading(|_| {}).await;
    assert_eq!(json_of(app.get("/healthz").await, 200).await, json!({"status": "ok"}));
    let loading = json_of(app.get("/readyz").await, 503).await;
    assert_eq!(loading, json!({"ready": false, "engine": false, "store": true, "draining": false}));
    let job = app.submit(&request(json!({}))).await;
    go.send(()).unwrap();
    assert_eq!(app.wait(&job).await["status"], "succeeded");
    let ready = json_of(app.get("/readyz").await, 200).await;
    assert_eq!(ready, json!({"ready": true, "engine": true, "store": true, "draining": false}));
    app.finish().await;
}

#[tokio::test]
async fn a_server_whose_picture_folder_has_gone_is_not_ready() {
    let app = spawn_app().await;
    app.paint(&request(json!({}))).await;
    fs::rename(app.folder.path().join("pictures"), app.folder.path().join("elsewhere")).unwrap();
    let parts = json_of(app.get("/readyz").await, 503).await;
    assert_eq!((&parts["engine"], &parts["store"]), (&json!(true), &json!(false)));
    app.finish().await;
}

#[tokio::test]
async fn the_models_and_what_they_can_do_are_listed() {
    let app = spawn_app().await;
    app.paint(&request(json!({}))).await;
    let mut models = json_of(app.get("/v1/models").await, 200).await;
    let last_used_at = models["models"][0]["last_used_at"].take();
    assert!(last_used_at.is_string(), "{last_used_at}");
    let limit = |scheduler: &str| json!({"scheduler": scheduler, "max_steps": 50, "reason": "it was distilled to 50 (original_inference_steps)"});
    let limits = ["lcm", "tcd"].map(limit);
    let demo = json!({
        "name": "demo",
        "family": "sd1",
        "tasks": ["text2img", "img2img", "inpainting", "refiner"],
        "unsupported_fields": [
            "original_size", "crops_coords_top_left", "target_size",
            "negative_original_size", "negative_crops_coords_top_left", "negative_target_size",
            "aesthetic_score", "negative_aesthetic_score", "image_guidance_scale", "fp8_linears",
        ],
        "refiners": [],
        "prompt_tokens": 77,
        "default_num_inference_steps": 25,
        "default_width": 128,
        "default_height": 128,
        "size_multiple": 8,
        "min_size": 64,
        "max_size": 2048,
        "default_guidance_scale": 5.0,
        "default_scheduler": "ddim",
        "scheduler_limits": limits,
        "state": "loaded",
        "error": null,
        "weights_bytes": 70_337_580,
        "last_used_at": null,
    });
    assert_eq!(models, json!({"models": [demo]}));
    app.finish().await;
}

#[tokio::test]
async fn every_scheduler_that_is_listed_paints_by_each_of_its_names() {
    let app = spawn_app().await;
    let listed = json_of(app.get("/v1/schedulers").await, 200).await;
    let small = |spelling: &Value| {
        request(
            json!({"scheduler": spelling, "num_inference_steps": 3, "width": 64, "height": 64, "guidance_scale": 1, "preview_every": 0}),
        )
    };
    let mut jobs = Vec::new();
    for scheduler in listed["schedulers"].as_array().unwrap() {
        for name in scheduler["names"].as_array().unwrap() {
            jobs.push((app.submit(&small(name)).await, name));
        }
        let alias = scheduler["aliases"].as_array().unwrap().last().unwrap();
        jobs.push((app.submit(&small(alias)).await, &scheduler["name"]));
    }
    for (job, name) in &jobs {
        let job = app.wait(job).await;
        assert_eq!((&job["status"], &job["request"]["scheduler"]), (&json!("succeeded"), *name), "{}", job["error"]);
    }
    app.finish().await;
}

#[tokio::test]
async fn what_a_scheduler_takes_is_listed() {
    let app = spawn_app().await;
    let listed = json_of(app.get("/v1/schedulers").await, 200).await;
    let of =
        |name: &str| listed["schedulers"].as_array().unwrap().iter().find(|scheduler| scheduler["name"] == name).unwrap().clone();
    let euler_a = json!({
        "name": "euler_ancestral",
        "aliases": ["Euler a", "k_euler_a", "k_euler_ancestral", "EulerAncestralDiscreteScheduler"],
        "names": ["euler_ancestral", "euler_ancestral_karras", "euler_ancestral_exponential", "euler_ancestral_beta", "euler_ancestral_sgm_uniform"],
        "sigma_schedules": ["karras", "exponential", "beta", "sgm_uniform"],
        "default_eta": 1.0,
        "stochastic": true,
        "unet_calls_per_step": 1,
    });
    assert_eq!(of("euler_ancestral"), euler_a);
    let takes =
        |name: &str| (of(name)["default_eta"].clone(), of(name)["stochastic"].clone(), of(name)["unet_calls_per_step"].clone());
    assert_eq!(takes("ddim"), (json!(0.0), json!(false), json!(1)));
    assert_eq!(takes("heun"), (Value::Null, json!(false), json!(2)));
    assert_eq!(takes("lcm"), (Value::Null, json!(true), json!(1)));
    app.finish().await;
}

#[tokio::test]
async fn the_contract_is_served_as_it_is_in_the_project() {
    let app = spawn_app().await;
    let answer = app.get("/openapi.yaml").await;
    assert_eq!(answer.headers()["content-type"], "application/yaml");
    let file = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml")).unwrap();
    assert_eq!(answer.text().await.unwrap(), file);
    app.finish().await;
}

#[tokio::test]
async fn an_unknown_address_is_a_problem_document() {
    let app = spawn_app().await;
    for path in ["/", "/v1", "/v1/generate/", "/v1/jobs/", "/v2/generate", "/%FF"] {
        let answer = app.get(path).await;
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let problem = json_of(answer, 404).await;
        assert_eq!((&problem["code"], &problem["status"]), (&json!("no_such_route"), &json!(404)), "{path}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_method_that_an_address_does_not_take_is_answered_with_those_that_it_takes() {
    let app = spawn_app().await;
    let job = "/v1/jobs/00000000-0000-4000-8000-000000000000";
    let cancel = format!("{job}/cancel");
    for (method, path, allowed) in [
        ("GET", "/v1/generate", "POST"),
        ("PUT", "/v1/generate", "POST"),
        ("PUT", job, "GET,HEAD,DELETE"),
        ("GET", &cancel, "POST"),
        ("POST", "/v1/models", "GET,HEAD"),
    ] {
        let answer = app.request(method, path).send().await.unwrap();
        assert_eq!(answer.headers()["allow"], allowed, "{method} {path}");
        assert_eq!(json_of(answer, 405).await["code"], "method_not_allowed");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_request_keeps_its_id_if_it_has_a_plain_one_and_gets_one_otherwise() {
    let app = spawn_app().await;
    let id_of = async |given: &str| {
        let answer = app.request("GET", "/v1/nothing").header("x-request-id", given).send().await.unwrap();
        let header = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["request_id"], header);
        header
    };
    assert_eq!(id_of("client-7.a_b").await, "client-7.a_b");
    let long = "x".repeat(65);
    let mut made = Vec::new();
    for given in ["two words", "<script>", &long, ""] {
        let id = id_of(given).await;
        assert!(id != given && id.len() == 36, "{given:?} became {id:?}");
        made.push(id);
    }
    made.dedup();
    assert_eq!(made.len(), 4);
    app.finish().await;
}

#[tokio::test]
async fn a_requests_id_goes_through_the_log_to_the_end_of_its_job() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Process::start(folder.path(), &[]);
    let post =
        server.http.post(format!("{}/v1/generate", server.url)).header("x-request-id", "from-a-client").json(&request(json!({})));
    let job = json_of(post.send().await.unwrap(), 202).await;
    server.wait(&job).await;
    server.terminate();
    assert_eq!(server.exit().code(), Some(0));
    let log = server.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for message in ["accepted a job", "claimed a job", "job ended"] {
        let line = lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("no {message:?} in\n{log}"));
        assert_eq!((&line["request.id"], &line["job.id"]), (&json!("from-a-client"), &job["id"]), "{line}");
    }
    let answered = lines.iter().find(|line| line["message"] == "answered" && line["http.status"] == 202).unwrap();
    assert_eq!(answered["span"]["request.id"], "from-a-client", "{answered}");
}
