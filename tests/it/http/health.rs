//! `easel health`: what a container's health check is told.

use std::{net::TcpListener, process::Output};

use serde_json::json;

use crate::support::{TestApp, easel, request, run, spawn_app};

/// Runs `easel health` with a server's address in the settings, beside the server that the test runs.
async fn health(bind: String) -> Output {
    let asked = tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().unwrap();
        run(easel(folder.path()).arg("health").env("EASEL__SERVER__BIND", bind).env("http_proxy", "http://127.0.0.1:1"))
    });
    asked.await.unwrap()
}

fn bind_of(app: &TestApp) -> String {
    app.url.trim_start_matches("http://").to_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_server_that_is_ready_is_healthy() {
    let app = spawn_app().await;
    app.paint(&request(json!({"num_inference_steps": 1}))).await;
    let output = health(bind_of(&app)).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("ready: {"));
    app.finish().await;
}

#[tokio::test]
async fn a_server_that_still_loads_its_models_is_not_healthy_and_the_reason_is_said() {
    let (app, go) = TestApp::loading(|_| {}).await;
    let output = health(bind_of(&app)).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("not ready") && said(&output).contains("\"engine\":false"), "{}", said(&output));
    go.send(()).unwrap();
    app.finish().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_or_hangs_is_not_healthy() {
    // Accepts connections, as the system does for it, and never answers.
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    for bind in ["127.0.0.1:1".to_owned(), hangs.local_addr().unwrap().to_string()] {
        let output = health(bind.clone()).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(&format!("no answer from http://{bind}/readyz")), "{}", said(&output));
    }
}

#[tokio::test]
async fn a_port_that_the_system_chooses_cannot_be_asked() {
    let output = health("127.0.0.1:0".to_owned()).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("server.bind"), "{}", said(&output));
}
