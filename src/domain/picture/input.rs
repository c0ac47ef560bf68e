//! Pictures that clients send.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{PictureError, PictureFormat, decode::decode, sha256_hex};
use crate::domain::fields::describe;

const ALLOWED: &str = "must be a PNG, JPEG or WebP picture of at most 4096 × 4096 pixels, as base64 or a data: URL";

/// A stored picture, as a request names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureRef {
    /// SHA-256 of the file in hexadecimal; also its key in the picture store.
    pub sha256: String,
    /// Width in pixels, upright.
    pub width: u32,
    /// Height in pixels, upright.
    pub height: u32,
    /// The file's format.
    pub content_type: PictureFormat,
}

/// A picture that a client sent: its file, checked to be whole and decodable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputPicture {
    /// What it is.
    pub reference: PictureRef,
    /// The file, as it was sent.
    pub bytes: Arc<[u8]>,
}

/// The pictures that came with a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InputPictures {
    /// The picture to start from.
    pub image: Option<InputPicture>,
    /// What of it is painted anew.
    pub mask_image: Option<InputPicture>,
}

impl InputPictures {
    /// Every one that there is.
    pub fn iter(&self) -> impl Iterator<Item = &InputPicture> {
        self.image.iter().chain(&self.mask_image)
    }
}

impl InputPicture {
    /// Parses the JSON value of an `image` or a `mask_image`. URLs that point elsewhere are never fetched.
    pub(in crate::domain) fn parse(value: Value) -> Result<Self, String> {
        let Value::String(text) = value else { return Err(format!("{ALLOWED}, got {}", describe(&value))) };
        let bytes = decode_base64(&text)?;
        drop(text);
        Self::from_file(bytes.into()).map_err(|error| format!("{ALLOWED}; {error}"))
    }

    /// Checks a picture's file.
    ///
    /// # Errors
    /// When it is not of an allowed format and size, or cannot be decoded to its end.
    pub fn from_file(bytes: Arc<[u8]>) -> Result<Self, PictureError> {
        let (format, rgb) = decode(&bytes)?;
        let reference = PictureRef { sha256: sha256_hex(&bytes), width: rgb.width(), height: rgb.height(), content_type: format };
        Ok(Self { reference, bytes })
    }
}

fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let encoded = match text.strip_prefix("data:") {
        None => text,
        Some(url) => match url.split_once(',') {
            Some((media_type, data)) if media_type.ends_with(";base64") => data,
            _ => return Err(format!("{ALLOWED}; the data: URL is not of the form data:image/png;base64,…")),
        },
    };
    STANDARD.decode(encoded.trim_ascii()).map_err(|error| format!("{ALLOWED}; the base64 is damaged: {error}"))
}
