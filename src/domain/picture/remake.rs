//! A painted picture once more: in another format, or smaller.

use image::{DynamicImage, RgbImage, imageops::FilterType};

use super::{Encoding, PictureError, PictureFormat, decode_rgb, parameters::read_parameters};

/// Reads a picture's file and writes it in `format`, scaled to `width` pixels if one is given, its height in proportion.
///
/// A picture in its own size keeps its parameters; a smaller one does without, since they would be most of its bytes.
///
/// # Errors
/// When the file cannot be decoded, or the encoder refuses the pixels.
pub fn remake(file: &[u8], format: PictureFormat, width: Option<u32>) -> Result<Vec<u8>, PictureError> {
    let rgb = decode_rgb(file)?;
    let encoding = Encoding::of(format);
    match width {
        Some(width) => encoding.encode(&scaled(rgb, width), None),
        None => encoding.encode(&rgb, read_parameters(file).as_deref()),
    }
}

fn scaled(rgb: RgbImage, width: u32) -> RgbImage {
    let height = f64::from(rgb.height()) * f64::from(width) / f64::from(rgb.width());
    DynamicImage::from(rgb).resize_exact(width, (height.round() as u32).max(1), FilterType::Lanczos3).into_rgb8()
}
