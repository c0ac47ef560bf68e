//! Writing pictures as files, with the parameters that made them.

use std::ops::RangeInclusive;

use image::{ExtendedColorType, ImageEncoder, RgbImage, codecs::jpeg::JpegEncoder};
use img_parts::{DynImage, ImageEXIF};
use serde::{Deserialize, Serialize};

use super::{
    PictureError, PictureFormat,
    format::by_name,
    parameters::{KEYWORD, exif},
};

/// The qualities that JPEG and WebP files may be written with.
pub const QUALITIES: RangeInclusive<u8> = 1..=100;
const DEFAULT_QUALITY: u8 = 90;
/// The quality from which on WebP is lossless.
const LOSSLESS: u8 = 100;

/// How a picture is written as a file: the part of a request that changes the file and not the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encoding {
    /// The file's format.
    #[serde(rename = "output_format", default, with = "by_name")]
    pub format: PictureFormat,
    /// 1 to 100; WebP of 100 is lossless, PNG always is.
    #[serde(rename = "output_quality", default = "default_quality")]
    pub quality: u8,
}

fn default_quality() -> u8 {
    DEFAULT_QUALITY
}

impl Default for Encoding {
    fn default() -> Self {
        Self::of(PictureFormat::default())
    }
}

impl Encoding {
    /// A format with the quality of a request that names none.
    pub fn of(format: PictureFormat) -> Self {
        Self { format, quality: DEFAULT_QUALITY }
    }

    /// Writes RGB pixels as a file that says which parameters made them; equal pixels and parameters give equal bytes.
    ///
    /// # Errors
    /// When the encoder refuses the pixels.
    pub fn encode(self, rgb: &RgbImage, parameters: Option<&str>) -> Result<Vec<u8>, PictureError> {
        match self.format {
            PictureFormat::Png => encode_png(rgb, parameters),
            PictureFormat::Jpeg => with_exif(jpeg(rgb, self.quality)?, parameters),
            PictureFormat::WebP => with_exif(webp(rgb, self.quality)?, parameters),
        }
    }
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
        encoder.add_itxt_chunk(KEYWORD.to_owned(), parameters.to_owned()).map_err(PictureError::encode)?;
    }
    let mut writer = encoder.write_header().map_err(PictureError::encode)?;
    writer.write_image_data(rgb.as_raw()).map_err(PictureError::encode)?;
    writer.finish().map_err(PictureError::encode)?;
    Ok(file)
}

fn jpeg(rgb: &RgbImage, quality: u8) -> Result<Vec<u8>, PictureError> {
    let mut file = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut file, quality);
    encoder.write_image(rgb.as_raw(), rgb.width(), rgb.height(), ExtendedColorType::Rgb8).map_err(PictureError::encode)?;
    Ok(file)
}

fn webp(rgb: &RgbImage, quality: u8) -> Result<Vec<u8>, PictureError> {
    let encoder = webp::Encoder::from_rgb(rgb.as_raw(), rgb.width(), rgb.height());
    // For lossless files libwebp takes the quality for the effort; 75 is its own default.
    let file = match quality {
        LOSSLESS.. => encoder.encode_simple(true, 75.0),
        lossy => encoder.encode_simple(false, f32::from(lossy)),
    };
    file.map(|file| file.to_vec()).map_err(|error| PictureError::encode(format!("{error:?}")))
}

/// Puts the parameters into a JPEG or WebP file, as AUTOMATIC1111 does.
fn with_exif(file: Vec<u8>, parameters: Option<&str>) -> Result<Vec<u8>, PictureError> {
    let Some(parameters) = parameters else { return Ok(file) };
    let parts = DynImage::from_bytes(file.into()).map_err(PictureError::encode)?;
    let mut parts = parts.ok_or(PictureError::Format)?;
    parts.set_exif(Some(exif(parameters)?.into()));
    Ok(parts.encoder().bytes().into())
}
