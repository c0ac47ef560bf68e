//! The file formats of pictures and their names.

use serde::{Deserialize, Serialize};

/// The file formats of pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PictureFormat {
    /// Portable Network Graphics.
    #[default]
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
    /// Every format.
    pub const ALL: [Self; 3] = [Self::Png, Self::Jpeg, Self::WebP];

    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }

    /// The name that requests use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
            Self::WebP => "webp",
        }
    }

    /// The end of a file's name, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            other => other.name(),
        }
    }

    /// Finds a format by the name that a request gives.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Finds a format by the end of a file's name, in any case.
    pub fn from_extension(extension: &str) -> Option<Self> {
        let extension = extension.to_ascii_lowercase();
        Self::ALL.into_iter().find(|format| [format.extension(), format.name()].contains(&extension.as_str()))
    }

    pub(super) fn of(format: image::ImageFormat) -> Option<Self> {
        match format {
            image::ImageFormat::Png => Some(Self::Png),
            image::ImageFormat::Jpeg => Some(Self::Jpeg),
            image::ImageFormat::WebP => Some(Self::WebP),
            _ => None,
        }
    }
}

/// Reads and writes a format by its name in requests, where its own serde is its media type.
pub(super) mod by_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::PictureFormat;

    pub(in crate::domain::picture) fn serialize<S: Serializer>(format: &PictureFormat, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(format.name())
    }

    pub(in crate::domain::picture) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PictureFormat, D::Error> {
        let name = String::deserialize(from)?;
        PictureFormat::from_name(&name).ok_or_else(|| D::Error::custom(format!("unknown picture format {name:?}")))
    }
}
