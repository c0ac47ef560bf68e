//! Pictures as files: reading those that clients send, and writing our own.

mod decode;
mod encode;
mod format;
mod input;
mod parameters;
mod remake;

use std::fmt::Display;

use sha2::{Digest, Sha256};

pub use decode::{decode_luma, decode_rgb, luma_of};
pub use encode::{Encoding, QUALITIES, encode_png};
pub use format::PictureFormat;
pub use input::{InputPicture, InputPictures, PictureRef};
pub use remake::remake;

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
    Encode(String),
}

impl PictureError {
    /// What an encoder says, in its own words.
    fn encode(problem: impl Display) -> Self {
        Self::Encode(problem.to_string())
    }
}

/// The SHA-256 of some bytes in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
