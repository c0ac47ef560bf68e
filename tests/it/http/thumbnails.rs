//! Pictures made smaller.

use serde_json::{Value, json};

use crate::support::{TestApp, json_of, parameters_of, request, spawn_app};

async fn thumbnail(app: &TestApp, job: &Value, query: &str, accept: &str) -> Vec<u8> {
    let url = format!("{}?{query}", job["images"][0]["url"].as_str().unwrap());
    let answer = app.request("GET", &url).header("accept", accept).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{query}");
    answer.bytes().await.unwrap().into()
}

#[tokio::test]
async fn a_thumbnail_has_the_width_that_was_asked_for_and_the_pictures_proportions() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({"height": 96}))).await;
    let whole = image::load_from_memory(&app.picture(&job, 0).await).unwrap();
    for (width, height) in [(16, 24), (33, 50), (63, 95)] {
        for accept in ["image/png", "image/jpeg", "image/webp"] {
            let file = thumbnail(&app, &job, &format!("width={width}"), accept).await;
            let small = image::load_from_memory(&file).unwrap().into_rgb8();
            assert_eq!((small.dimensions(), image::guess_format(&file).unwrap().to_mime_type()), ((width, height), accept));
            assert_eq!(parameters_of(&file), None);
            let expected = whole.thumbnail_exact(width, height).into_rgb8();
            let difference = small.as_raw().iter().zip(expected.as_raw()).map(|(one, other)| u64::from(one.abs_diff(*other)));
            assert!(difference.sum::<u64>() / (small.as_raw().len() as u64) < 16, "{accept} of {width} shows something else");
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn no_picture_is_made_larger_than_it_is() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let file = app.picture(&job, 0).await;
    for width in [64, 65, 2048] {
        assert!(thumbnail(&app, &job, &format!("width={width}"), "*/*").await == file, "{width}");
    }
    let webp = thumbnail(&app, &job, "width=2048", "image/webp").await;
    assert_eq!(image::load_from_memory(&webp).unwrap().width(), 64);
    app.finish().await;
}

#[tokio::test]
async fn a_parameter_that_is_wrong_or_unknown_is_named() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let width = "must be a whole number from 16 to 2048, got ";
    for (query, parameter, detail) in [
        ("width=15", "width", width),
        ("width=2049", "width", width),
        ("width=", "width", width),
        ("width=-32", "width", width),
        ("width=32.0", "width", width),
        ("width=wide", "width", "got \"wide\""),
        ("width=32&width=33", "width", "may be given once, came 2 times"),
        ("height=32", "height", "unknown parameter; the parameters are width"),
        ("Width=32", "Width", "unknown parameter"),
    ] {
        let problem = json_of(app.get(&format!("{}?{query}", job["images"][0]["url"].as_str().unwrap())).await, 422).await;
        assert_eq!(
            (&problem["code"], &problem["errors"][0]["parameter"]),
            (&json!("invalid_parameters"), &json!(parameter)),
            "{query}"
        );
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
    app.finish().await;
}

#[tokio::test]
async fn many_thumbnails_at_once_are_all_made() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let queries: Vec<String> = (16..26).map(|width| format!("width={width}")).collect();
    let files = futures::future::join_all(queries.iter().map(|query| thumbnail(&app, &job, query, "image/webp"))).await;
    let widths = files.iter().map(|file| image::load_from_memory(file).unwrap().width());
    assert!(widths.eq(16..26));
    app.finish().await;
}
