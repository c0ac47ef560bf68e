//! Reading picture files, with every size bounded before memory is taken.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageDecoder, ImageReader, Limits, Luma, RgbImage};

use super::{PictureError, PictureFormat};

/// The largest side of a picture that a client sends, in pixels.
const MAX_SIDE: u32 = 4096;
/// What decoding one picture may allocate: 4096 × 4096 pixels of four 16-bit channels, and as much again.
const MAX_DECODE_BYTES: u64 = 2 * 4096 * 4096 * 8;

/// Decodes a picture's file to upright RGB pixels; transparency is dropped, as PIL's `convert("RGB")` does.
///
/// # Errors
/// As for [`super::InputPicture::from_file`].
pub fn decode_rgb(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    decode(bytes).map(|(_, rgb)| rgb)
}

/// Decodes a picture's file to its upright luminance as PIL's `convert("L")` does: 0.299 R + 0.587 G + 0.114 B in ITU-R 601's fixed point,
/// transparency dropped.
///
/// # Errors
/// As for [`super::InputPicture::from_file`].
pub fn decode_luma(bytes: &[u8]) -> Result<GrayImage, PictureError> {
    decode_rgb(bytes).map(|rgb| luma_of(&rgb))
}

/// The luminance of a picture as PIL's `convert("L")` has it.
pub fn luma_of(picture: &RgbImage) -> GrayImage {
    let luma = |[red, green, blue]: [u8; 3]| {
        ((u32::from(red) * 19_595 + u32::from(green) * 38_470 + u32::from(blue) * 7_471 + 0x8000) >> 16) as u8
    };
    GrayImage::from_fn(picture.width(), picture.height(), |x, y| Luma([luma(picture.get_pixel(x, y).0)]))
}

pub(super) fn decode(bytes: &[u8]) -> Result<(PictureFormat, RgbImage), PictureError> {
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
