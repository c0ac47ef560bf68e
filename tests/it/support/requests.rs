//! Requests that are painted in a moment.

use std::{fs, io::Cursor, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// A picture of 64 × 64 in two steps, the same whenever it is asked for; `changes` is laid over it.
pub(crate) fn request(changes: Value) -> Value {
    let mut body = json!({
        "prompt": "a red house",
        "width": 64,
        "height": 64,
        "num_inference_steps": 2,
        "seed": 7,
        "preview_every": 0,
    });
    for (field, value) in changes.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

/// The file of a picture to start from.
pub(crate) fn house_png() -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/init-house.png")).unwrap()
}

/// [`house_png`] as a `data:` URL.
pub(crate) fn house_url() -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(house_png()))
}

/// The SHA-256 of each picture of a job.
pub(crate) fn sha256s(job: &Value) -> Vec<String> {
    let images = job["images"].as_array().unwrap();
    images.iter().map(|image| image["sha256"].as_str().unwrap().to_owned()).collect()
}

/// The parameters that a picture's file says it was made with: PNG's text chunk, or the EXIF comment of the others.
pub(crate) fn parameters_of(file: &[u8]) -> Option<String> {
    if file.starts_with(b"\x89PNG") {
        let reader = png::Decoder::new(Cursor::new(file)).read_info().unwrap();
        return reader.info().utf8_text.iter().find(|chunk| chunk.keyword == "parameters").map(|chunk| chunk.get_text().unwrap());
    }
    let exif = match exif::Reader::new().read_from_container(&mut Cursor::new(file)) {
        Err(exif::Error::NotFound(_)) => return None,
        read => read.unwrap(),
    };
    let exif::Value::Undefined(comment, _) = &exif.get_field(exif::Tag::UserComment, exif::In::PRIMARY)?.value else { panic!() };
    let units: Vec<u16> =
        comment.strip_prefix(b"UNICODE\0").unwrap().chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    Some(String::from_utf16(&units).unwrap())
}
