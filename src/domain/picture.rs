//! Pictures as files: reading those that clients send, with every size bounded before memory is taken, and writing our own.

use std::{io::Cursor, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::fields::describe;

/// The largest side of a picture that a client sends, in pixels.
const MAX_SIDE: u32 = 4096;
/// What decoding one picture may allocate: 4096 × 4096 pixels of four 16-bit channels, and as much again.
const MAX_DECODE_BYTES: u64 = 2 * 4096 * 4096 * 8;
const ALLOWED: &str = "must be a PNG, JPEG or WebP picture of at most 4096 × 4096 pixels, as base64 or a data: URL";

/// The file formats of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PictureFormat {
    /// Portable Network Graphics.
    #[serde(rename = "image/png")]
    Png,
    /// JPEG.
    #[serde(rename = "image/jpeg")]
    Jpeg,
    /// WebP.
    #[serde(rename = "image/webp")]
    WebP,
}

impl PictureFormat {
    fn of(format: image::ImageFormat) -> Option<Self> {
        match format {
            image::ImageFormat::Png => Some(Self::Png),
            image::ImageFormat::Jpeg => Some(Self::Jpeg),
            image::ImageFormat::WebP => Some(Self::WebP),
            _ => None,
        }
    }
}

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

/// Why a picture cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The bytes are no picture of an allowed format.
    #[error("the bytes are not a PNG, JPEG or WebP file")]
    Format,
    /// The header names a size that is not allowed.
    #[error("the picture has {width} × {height} pixels")]
    TooLarge {
        /// Width that the header names.
        width: u32,
        /// Height that the header names.
        height: u32,
    },
    /// The file is damaged, cut short or would take too much memory.
    #[error("the picture cannot be decoded: {0}")]
    Decode(#[from] image::ImageError),
    /// The file ends before the picture does.
    #[error("the picture is cut short")]
    CutShort,
    /// A file cannot be written.
    #[error("the picture cannot be encoded: {0}")]
    Encode(#[from] png::EncodingError),
}

impl InputPicture {
    /// Parses the JSON value of an `image` field. URLs that point elsewhere are never fetched.
    pub(super) fn parse(value: Value) -> Result<Self, String> {
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

/// Decodes a picture's file to upright RGB pixels; transparency is dropped, as PIL's `convert("RGB")` does.
///
/// # Errors
/// As for [`InputPicture::from_file`].
pub fn decode_rgb(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    decode(bytes).map(|(_, rgb)| rgb)
}

fn decode(bytes: &[u8]) -> Result<(PictureFormat, RgbImage), PictureError> {
    let format = image::guess_format(bytes).ok().and_then(PictureFormat::of).ok_or(PictureError::Format)?;
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(image::ImageError::IoError)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODE_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if width > MAX_SIDE || height > MAX_SIDE || width == 0 || height == 0 {
        return Err(PictureError::TooLarge { width, height });
    }
    if format == PictureFormat::Jpeg && !jpeg_has_end(bytes) {
        return Err(PictureError::CutShort);
    }
    let orientation = decoder.orientation()?;
    let mut pixels = DynamicImage::from_decoder(decoder)?;
    pixels.apply_orientation(orientation);
    Ok((format, pixels.into_rgb8()))
}

/// Whether a JPEG file's picture data come to their end-of-image marker. The decoder would fill what is missing with grey.
fn jpeg_has_end(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    const END_OF_IMAGE: [u8; 2] = [0xFF, 0xD9];
    // Segments are walked by their lengths, since one may hold a thumbnail with an end of its own: marker (2 bytes), length (2).
    let mut at = 2;
    while let Some([0xFF, marker, high, low]) = bytes.get(at..at + 4) {
        if *marker == START_OF_SCAN {
            return bytes[at..].windows(2).any(|pair| pair == END_OF_IMAGE);
        }
        // A marker may be padded with further 0xFF bytes.
        at += if *marker == 0xFF { 1 } else { 2 + usize::from(u16::from_be_bytes([*high, *low])) };
    }
    false
}

/// Writes RGB pixels as a PNG file, with the parameters that made them in an iTXt chunk named `parameters`.
///
/// # Errors
/// When the encoder refuses the pixels.
pub fn encode_png(rgb: &RgbImage, parameters: Option<&str>) -> Result<Vec<u8>, PictureError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, rgb.width(), rgb.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(parameters) = parameters {
        encoder.add_itxt_chunk("parameters".to_owned(), parameters.to_owned())?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgb.as_raw())?;
    writer.finish()?;
    Ok(file)
}

/// The SHA-256 of some bytes in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
