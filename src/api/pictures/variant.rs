//! The files that one picture can be had as.

use headers::ETag;

use crate::{
    api::error::ApiError,
    domain::{JobImage, PictureFormat},
};

/// One of the files that a picture can be had as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Variant {
    /// The file's format.
    pub(super) format: PictureFormat,
    /// Its width in pixels where that is smaller than the picture's own.
    pub(super) width: Option<u32>,
}

impl Variant {
    /// The file of a picture in `format`, at most `width` pixels wide. No picture is made larger than it is.
    pub(super) fn of(image: &JobImage, format: PictureFormat, width: Option<u32>) -> Self {
        Self { format, width: width.filter(|width| *width < image.width) }
    }

    /// Whether it is the stored file.
    pub(super) fn is_stored(self, image: &JobImage) -> bool {
        self.width.is_none() && self.format == image.content_type
    }

    /// What the file and the one that it is made of can take at most: no format is larger than the plain pixels by much.
    pub(super) fn most_bytes(self, image: &JobImage) -> u64 {
        let pixels = u64::from(image.width) * u64::from(image.height);
        if self.is_stored(image) { image.bytes } else { image.bytes + 3 * pixels }
    }

    /// Names the file's bytes. Those of a file that is made on demand may change with the encoders, which change with our version.
    pub(super) fn etag(self, image: &JobImage) -> Result<ETag, ApiError> {
        let sha256 = &image.sha256;
        let width = self.width.map_or_else(String::new, |width| format!("-{width}"));
        let tag = match self.is_stored(image) {
            true => format!("\"{sha256}\""),
            false => format!("\"{sha256}-{}{width}-{}\"", self.format.name(), env!("CARGO_PKG_VERSION")),
        };
        tag.parse().map_err(|_| ApiError::Internal(format!("{tag} is no ETag")))
    }
}
