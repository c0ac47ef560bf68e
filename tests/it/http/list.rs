//! `GET /v1/jobs`

use serde_json::{Value, json};

use crate::support::{TestApp, json_of, request, spawn_app};

async fn page(app: &TestApp, query: &str) -> Value {
    json_of(app.get(&format!("/v1/jobs{query}")).await, 200).await
}

fn seeds(page: &Value) -> Vec<u64> {
    page["jobs"].as_array().unwrap().iter().map(|job| job["request"]["seed"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn jobs_are_listed_newest_first_page_by_page_and_none_twice() {
    let (app, gate) = TestApp::gated(|_| {}).await;
    let mut jobs = Vec::new();
    for seed in 0..5 {
        jobs.push(app.submit(&request(json!({"seed": seed}))).await);
    }
    let first = page(&app, "?limit=2").await;
    assert_eq!(seeds(&first), [4, 3]);
    // A job that comes between two pages moves nothing.
    jobs.push(app.submit(&request(json!({"seed": 5}))).await);
    let second = page(&app, &format!("?limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!(seeds(&second), [2, 1]);
    let third = page(&app, &format!("?limit=2&cursor={}", second["next_cursor"].as_str().unwrap())).await;
    assert_eq!((seeds(&third), &third["next_cursor"]), (vec![0], &Value::Null));
    assert_eq!(page(&app, "").await["jobs"].as_array().unwrap().len(), 6);
    drop(gate);
    for job in &jobs {
        app.wait(job).await;
    }
    app.finish().await;
}

#[tokio::test]
async fn the_list_shows_each_job_as_its_own_address_does() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({"metadata": {"order": "17"}}))).await;
    assert_eq!(page(&app, "").await, json!({"jobs": [job], "next_cursor": null}));
    app.finish().await;
}

#[tokio::test]
async fn a_status_filters_the_list_and_several_do_too() {
    let (app, mut gate) = TestApp::gated(|config| config.dispatch.max_canvases = 1).await;
    let running = app.submit(&request(json!({"seed": 0}))).await;
    gate.arrival().await;
    let cancelled = app.submit(&request(json!({"seed": 1}))).await;
    let queued = app.submit(&request(json!({"seed": 2}))).await;
    app.cancel(&cancelled).await;
    for (query, expected) in [
        ("?status=running", vec![0]),
        ("?status=cancelled", vec![1]),
        ("?status=queued,running", vec![2, 0]),
        ("?status=queued&status=cancelled", vec![2, 1]),
        ("?status=failed", vec![]),
        ("", vec![2, 1, 0]),
    ] {
        assert_eq!(seeds(&page(&app, query).await), expected, "{query}");
    }
    let listed = &page(&app, "?status=queued").await["jobs"][0];
    assert_eq!((&listed["id"], &listed["queue_position"]), (&queued["id"], &json!(1)));
    drop(gate);
    for job in [&running, &queued] {
        app.wait(job).await;
    }
    app.finish().await;
}

#[tokio::test]
async fn a_parameter_that_is_wrong_is_named_with_what_is_allowed() {
    let app = spawn_app().await;
    for (query, parameter, allowed) in [
        ("limit=0", "limit", "from 1 to 100"),
        ("limit=101", "limit", "from 1 to 100"),
        ("limit=ten", "limit", "from 1 to 100"),
        ("limit=1&limit=2", "limit", "may be given once"),
        ("status=done", "status", "one or more of queued, running, succeeded, failed, cancelled"),
        ("status=", "status", "one or more of"),
        ("cursor=zzz", "cursor", "the next_cursor of another page"),
        ("cursor=AAAAAAAAAAA", "cursor", "the next_cursor of another page"),
        ("page=2", "page", "the parameters are status, cursor, limit"),
    ] {
        let problem = json_of(app.get(&format!("/v1/jobs?{query}")).await, 422).await;
        let error = &problem["errors"][0];
        assert_eq!((&problem["code"], &error["parameter"]), (&json!("invalid_parameters"), &json!(parameter)), "{query}");
        assert!(error["detail"].as_str().unwrap().contains(allowed), "{query}: {error}");
    }
    app.finish().await;
}
