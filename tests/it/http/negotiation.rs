//! One picture in the format that the client accepts.

use reqwest::Response;
use serde_json::{Value, json};

use crate::support::{TestApp, json_of, parameters_of, request, sha256s, spawn_app};

async fn get(app: &TestApp, job: &Value, headers: &[(&str, &str)]) -> Response {
    let get = app.request("GET", job["images"][0]["url"].as_str().unwrap());
    headers.iter().fold(get, |get, (name, value)| get.header(*name, *value)).send().await.unwrap()
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers()[name].to_str().unwrap()
}

#[tokio::test]
async fn a_client_gets_the_format_that_it_accepts_most() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    for (accept, media_type) in [
        ("image/webp", "image/webp"),
        ("image/jpeg, image/webp;q=0.9", "image/jpeg"),
        ("image/png;q=0, image/*", "image/webp"),
        ("image/png;q=0, image/webp;q=0, */*;q=0.1", "image/jpeg"),
        ("image/*;q=0.3, text/html", "image/png"),
        ("*/*", "image/png"),
        ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", "image/png"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8", "image/webp"),
    ] {
        let answer = get(&app, &job, &[("accept", accept)]).await;
        assert_eq!(answer.status(), 200, "{accept}");
        assert_eq!((header(&answer, "content-type"), header(&answer, "vary")), (media_type, "accept"), "{accept}");
        let file = answer.bytes().await.unwrap();
        assert_eq!(image::guess_format(&file).unwrap().to_mime_type(), media_type, "{accept}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_picture_that_is_written_again_is_the_file_that_would_have_been_painted() {
    let app = spawn_app().await;
    let png = app.paint(&request(json!({}))).await;
    for format in ["jpeg", "webp"] {
        let painted = app.paint(&request(json!({"output_format": format}))).await;
        let media_type = painted["images"][0]["content_type"].as_str().unwrap();
        let written = get(&app, &png, &[("accept", media_type)]).await.bytes().await.unwrap();
        assert!(written == app.picture(&painted, 0).await, "{format}");
    }
    let webp = app.paint(&request(json!({"output_format": "webp", "output_quality": 100}))).await;
    let written = get(&app, &webp, &[("accept", "image/png")]).await.bytes().await.unwrap();
    assert!(written == app.picture(&png, 0).await, "a lossless picture lost something");
    let jpeg = app.paint(&request(json!({"output_format": "jpeg"}))).await;
    for accept in ["image/png", "image/webp"] {
        let written = get(&app, &jpeg, &[("accept", accept)]).await.bytes().await.unwrap();
        assert_eq!(parameters_of(&written), parameters_of(&app.picture(&png, 0).await), "{accept}");
    }
    app.finish().await;
}

#[tokio::test]
async fn each_file_of_a_picture_has_an_etag_of_its_own_and_is_not_sent_twice() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let mut etags = Vec::new();
    for (accept, query) in
        [("image/png", ""), ("image/png", "?width=32"), ("image/jpeg", ""), ("image/webp", ""), ("image/webp", "?width=32")]
    {
        let url = format!("{}{query}", job["images"][0]["url"].as_str().unwrap());
        let first = app.request("GET", &url).header("accept", accept).send().await.unwrap();
        assert_eq!((first.status().as_u16(), header(&first, "cache-control")), (200, "private, max-age=31536000, immutable"));
        etags.push((accept, url, header(&first, "etag").to_owned()));
    }
    assert_eq!(etags[0].2, format!("\"{}\"", sha256s(&job)[0]));
    // Whoever has a picture is told so without its file.
    std::fs::remove_dir_all(app.folder.path().join("pictures/pictures")).unwrap();
    for (accept, url, etag) in &etags {
        for (_, _, known) in &etags {
            let again = app.request("GET", url).header("accept", *accept).header("if-none-match", known).send().await.unwrap();
            let expected = if known == etag { 304 } else { 500 };
            assert_eq!(again.status(), expected, "{url} as {accept} with {known}");
            if expected == 304 {
                assert_eq!((header(&again, "etag"), header(&again, "vary")), (etag.as_str(), "accept"));
            }
        }
    }
    app.finish().await;
}

#[tokio::test]
async fn a_client_that_accepts_no_picture_is_told_what_there_is() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({"output_format": "webp"}))).await;
    for accept in ["image/avif", "application/json", "*/*;q=0"] {
        let problem = json_of(get(&app, &job, &[("accept", accept)]).await, 406).await;
        assert_eq!(problem["code"], "not_acceptable");
        assert!(problem["detail"].as_str().unwrap().contains("image/png, image/jpeg, image/webp"), "{problem}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_damaged_file_is_written_again_in_no_format() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let file = app.folder.path().join(format!("pictures/pictures/{}/0.png", job["id"].as_str().unwrap()));
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    for accept in ["image/png", "image/webp"] {
        assert_eq!(json_of(get(&app, &job, &[("accept", accept)]).await, 500).await["code"], "internal");
    }
    app.finish().await;
}

#[tokio::test]
async fn head_says_what_get_says_and_sends_nothing() {
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    let url = job["images"][0]["url"].as_str().unwrap();
    for (path, accept) in [(url.to_owned(), "*/*"), (url.to_owned(), "image/webp"), (format!("{url}?width=16"), "image/jpeg")] {
        // A range means something to GET only.
        let ask = |method: &str| app.request(method, &path).header("accept", accept).send();
        let (get, head) = (ask("GET").await.unwrap(), ask("HEAD").await.unwrap());
        let ranged = app.request("HEAD", &path).header("accept", accept).header("range", "bytes=0-9").send().await.unwrap();
        assert_eq!((head.status().as_u16(), ranged.status().as_u16()), (200, 200));
        for name in ["content-type", "content-length", "content-disposition", "etag", "cache-control", "vary", "accept-ranges"] {
            assert_eq!(
                (get.headers().get(name), get.headers().get(name)),
                (head.headers().get(name), ranged.headers().get(name)),
                "{name}"
            );
            assert!(get.headers().contains_key(name), "{name}");
        }
        assert!(head.bytes().await.unwrap().is_empty());
    }
    app.finish().await;
}
