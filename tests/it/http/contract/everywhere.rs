//! Answers that many operations give for the same reason, brought about for each that documents them.

use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use easel::config::{Config, KeyConfig};
use serde_json::json;

use super::{document::Operation, witness::Witness};
use crate::{
    http::auth::{key_config, key_of},
    support::{TestApp, TestClient, json_of, request, spawn_app},
};

const METHODS: [&str; 6] = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"];

/// Sends what the document itself gives as an example.
async fn try_example(witness: &Witness, client: &TestClient, operation: Operation<'_>, status: u16) {
    let request = client.request(operation.method, &operation.example_path(&witness.document));
    let request = match operation.example_body() {
        Some(body) => request.json(body),
        None => request,
    };
    witness.send(client, request, status).await;
}

/// Every method that a path does not document is refused with those that it does.
pub(super) async fn other_methods(witness: &Witness) {
    let app = spawn_app().await;
    for path in witness.document.paths() {
        let operations = witness.document.operations_at(path);
        let documented: Vec<&str> = operations.iter().map(|operation| operation.method).collect();
        let mut allowed = documented.clone();
        if documented.contains(&"GET") {
            allowed.push("HEAD");
        }
        allowed.sort_unstable();
        for method in METHODS.into_iter().filter(|method| !documented.contains(method)) {
            for operation in &operations {
                let answer = app.request(method, &operation.example_path(&witness.document)).send().await.unwrap();
                let answer = witness.check(*operation, answer, 405).await;
                let mut named: Vec<&str> = answer.headers["allow"].to_str().unwrap().split(',').map(str::trim).collect();
                named.sort_unstable();
                assert_eq!(named, allowed, "{method} {path}");
            }
        }
    }
    app.finish().await;
}

/// A job that nobody has, and one that has been removed.
pub(super) async fn a_job_that_is_not_there(witness: &Witness) {
    let app = spawn_app().await;
    for operation in of_a_job(witness) {
        try_example(witness, &app, operation, 404).await;
    }
    let post = app.request("POST", "/v1/generate").header("prefer", "wait=60").json(&request(json!({})));
    let job = json_of(post.send().await.unwrap(), 200).await;
    let url = job["urls"]["self"].as_str().unwrap();
    witness.call(&app, "DELETE", url, 204).await;
    for operation in of_a_job(witness) {
        let path = operation.path.replace("/v1/jobs/{id}", url).replace("{index}", "0");
        witness.call(&app, operation.method, &path, 410).await;
    }
    app.finish().await;
}

fn of_a_job(witness: &Witness) -> impl Iterator<Item = Operation<'_>> {
    witness.document.operations().into_iter().filter(|operation| operation.path.starts_with("/v1/jobs/{id}"))
}

/// Whoever has no key, where there are keys.
pub(super) async fn no_key(witness: &Witness) {
    let app = TestApp::with(|config| config.auth.keys = vec![key_config("alice")]).await;
    for operation in witness.document.operations().into_iter().filter(|operation| operation.documents(401)) {
        try_example(witness, &app, operation, 401).await;
    }
    app.finish().await;
}

/// A page of another site, where there are no keys.
pub(super) async fn another_site(witness: &Witness) {
    let app = spawn_app().await;
    for operation in witness.document.operations().into_iter().filter(|operation| operation.documents(403)) {
        let path = operation.example_path(&witness.document);
        witness.send(&app, app.request(operation.method, &path).header("sec-fetch-site", "cross-site"), 403).await;
    }
    app.finish().await;
}

/// A page whose own name leads to this machine, where there are no keys.
pub(super) async fn another_name(witness: &Witness) {
    let app = spawn_app().await;
    for operation in witness.document.operations().into_iter().filter(|operation| operation.documents(421)) {
        let path = operation.example_path(&witness.document);
        witness.send(&app, app.request(operation.method, &path).header("host", "evil.example"), 421).await;
    }
    app.finish().await;
}

/// A client that asks more often than it may. Its requests lack a body, so that none of them brings a job.
pub(super) async fn too_many_requests(witness: &Witness) {
    let key = |config: &mut Config| {
        config.auth.keys = vec![KeyConfig { requests_per_second: Some(1), admin: true, ..key_config("alice") }];
    };
    let app = TestApp::with(key).await;
    let alice = app.with_key(&key_of("alice"));
    for operation in witness.document.operations().into_iter().filter(|operation| operation.documents(429)) {
        let path = operation.example_path(&witness.document);
        let refused = loop {
            let answer = alice.request(operation.method, &path).send().await.unwrap();
            if answer.status() == 429 {
                break answer;
            }
        };
        witness.check(operation, refused, 429).await;
    }
    app.finish().await;
}

/// A database that lost its jobs is a store that does not answer.
pub(super) async fn a_store_that_is_away(witness: &Witness) {
    let app = spawn_app().await;
    let file = SqliteConnectOptions::new().filename(app.folder.path().join("easel.db"));
    let mut database = SqliteConnection::connect_with(&file).await.unwrap();
    sqlx::query("ALTER TABLE jobs RENAME TO lost").execute(&mut database).await.unwrap();
    for operation in witness.document.operations().into_iter().filter(|operation| operation.documents(503)) {
        try_example(witness, &app, operation, 503).await;
    }
    sqlx::query("ALTER TABLE lost RENAME TO jobs").execute(&mut database).await.unwrap();
    app.finish().await;
}
