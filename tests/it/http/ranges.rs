//! Parts of a picture's file.

use reqwest::Response;
use serde_json::json;

use crate::support::{TestApp, json_of, request, spawn_app};

/// A painted picture: where it is, and its file.
async fn painted(app: &TestApp) -> (String, Vec<u8>) {
    let job = app.paint(&request(json!({}))).await;
    (job["images"][0]["url"].as_str().unwrap().to_owned(), app.picture(&job, 0).await)
}

async fn get(app: &TestApp, url: &str, headers: &[(&str, &str)]) -> Response {
    let get = headers.iter().fold(app.request("GET", url), |get, (name, value)| get.header(*name, *value));
    get.send().await.unwrap()
}

#[tokio::test]
async fn a_part_of_a_picture_is_sent_with_its_place() {
    let app = spawn_app().await;
    let (url, file) = painted(&app).await;
    let length = file.len();
    for (range, start, end) in [
        ("bytes=0-0".to_owned(), 0, 1),
        ("bytes=0-99".to_owned(), 0, 100),
        ("bytes=100-199".to_owned(), 100, 200),
        (format!("bytes={}-", length - 1), length - 1, length),
        ("bytes=50-".to_owned(), 50, length),
        ("bytes=-100".to_owned(), length - 100, length),
        ("bytes=-9999999".to_owned(), 0, length),
        ("bytes=10-9999999".to_owned(), 10, length),
    ] {
        let answer = get(&app, &url, &[("range", &range)]).await;
        assert_eq!(answer.status(), 206, "{range}");
        assert_eq!(answer.headers()["content-range"], format!("bytes {start}-{}/{length}", end - 1), "{range}");
        assert_eq!(answer.headers()["content-type"], "image/png");
        assert!(["etag", "cache-control", "vary"].iter().all(|name| answer.headers().contains_key(*name)));
        assert!(answer.bytes().await.unwrap() == file[start..end], "{range}");
    }
    app.finish().await;
}

#[tokio::test]
async fn several_ranges_or_none_that_make_sense_are_answered_with_the_whole() {
    let app = spawn_app().await;
    let (url, file) = painted(&app).await;
    for range in ["bytes=0-9,20-29", "bytes=9-0", "bytes=first-last", "lines=0-9", "bytes"] {
        let answer = get(&app, &url, &[("range", range)]).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["accept-ranges"]), (200, &"bytes".parse().unwrap()), "{range}");
        assert!(answer.bytes().await.unwrap() == file, "{range}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_range_behind_the_end_is_answered_with_where_the_end_is() {
    let app = spawn_app().await;
    let (url, file) = painted(&app).await;
    for range in [format!("bytes={}-", file.len()), "bytes=9999999-".to_owned(), "bytes=-0".to_owned()] {
        let answer = get(&app, &url, &[("range", &range)]).await;
        assert_eq!(answer.headers()["content-range"], format!("bytes */{}", file.len()), "{range}");
        assert_eq!(json_of(answer, 416).await["code"], "range_not_satisfiable", "{range}");
    }
    app.finish().await;
}

#[tokio::test]
async fn a_part_is_sent_only_to_who_has_parts_of_the_same_file() {
    let app = spawn_app().await;
    let (url, file) = painted(&app).await;
    let etag = get(&app, &url, &[]).await.headers()["etag"].to_str().unwrap().to_owned();
    let weak = format!("W/{etag}");
    for (condition, status) in
        [(etag.as_str(), 206), (&weak, 200), ("\"other\"", 200), ("Sat, 29 Oct 1994 19:43:31 GMT", 200), ("nonsense", 200)]
    {
        let answer = get(&app, &url, &[("range", "bytes=0-9"), ("if-range", condition)]).await;
        assert_eq!(answer.status(), status, "{condition}");
        let expected = if status == 206 { &file[..10] } else { &file[..] };
        assert!(answer.bytes().await.unwrap() == expected, "{condition}");
    }
    let other_format = get(&app, &url, &[("range", "bytes=0-9"), ("if-range", &etag), ("accept", "image/webp")]).await;
    assert_eq!(other_format.status(), 200, "the parts of a PNG fit no WebP");
    app.finish().await;
}

#[tokio::test]
async fn a_picture_that_is_made_on_demand_can_be_had_in_parts_too() {
    let app = spawn_app().await;
    let (url, _) = painted(&app).await;
    for (path, accept) in [(url.clone(), "image/webp"), (format!("{url}?width=32"), "image/jpeg")] {
        let whole = get(&app, &path, &[("accept", accept)]).await.bytes().await.unwrap();
        let mut parts = Vec::new();
        for range in ["bytes=0-99", "bytes=100-"] {
            let answer = get(&app, &path, &[("accept", accept), ("range", range)]).await;
            assert_eq!(answer.status(), 206);
            parts.extend(answer.bytes().await.unwrap());
        }
        assert!(parts == whole, "{path}");
    }
    app.finish().await;
}
