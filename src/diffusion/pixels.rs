//! Between pictures and tensors.

use image::{RgbImage, imageops};
use tch::{Device, Kind, Tensor};

use super::{error::engine_error, layers::Result};
use crate::dispatch::ports::{EngineError, IntoRgb};

/// Pixels as the VAE's encoder takes them: `[1, 3, height, width]` float32 in −1..1. A picture of another size is resized with Lanczos'
/// filter, as diffusers' `VaeImageProcessor` does.
pub(super) fn to_tensor(picture: &RgbImage, width: u32, height: u32, device: Device) -> Result<Tensor> {
    let resized;
    let picture = if picture.dimensions() == (width, height) {
        picture
    } else {
        resized = imageops::resize(picture, width, height, imageops::FilterType::Lanczos3);
        &resized
    };
    let size = [1, i64::from(height), i64::from(width), 3];
    let pixels = Tensor::f_from_data_size(picture.as_raw(), &size, Kind::Uint8)?.f_to_device(device)?;
    pixels
        .f_permute([0, 3, 1, 2])?
        .f_to_kind(Kind::Float)?
        .f_div_scalar(255.0)?
        .f_mul_scalar(2.0)?
        .f_sub_scalar(1.0)?
        .f_contiguous()
}

/// A picture on the device: `[3, H, W]` float32 in about −1..1. The device may still be painting it.
#[derive(Debug)]
pub struct Frame {
    pub(super) pixels: Tensor,
}

impl IntoRgb for Frame {
    fn into_rgb(self) -> std::result::Result<RgbImage, EngineError> {
        self.to_rgb().map_err(|error| engine_error(&error))?.ok_or_else(|| EngineError::Failed("a frame has no pixels".to_owned()))
    }
}

impl Frame {
    /// As diffusers: clamp(x / 2 + 0.5, 0, 1) × 255, rounded to the nearest.
    fn to_rgb(&self) -> Result<Option<RgbImage>> {
        let unit = self.pixels.f_div_scalar(2.0)?.f_add_scalar(0.5)?.f_clamp(0.0, 1.0)?;
        let bytes = unit.f_mul_scalar(255.0)?.f_round()?.f_permute([1, 2, 0])?.f_to_kind(Kind::Uint8)?;
        let (height, width, channels) = bytes.size3()?;
        let count = (height * width * channels) as usize;
        let mut raw = vec![0_u8; count];
        bytes.f_to_device(Device::Cpu)?.f_contiguous()?.f_copy_data(&mut raw, count)?;
        Ok(RgbImage::from_raw(width as u32, height as u32, raw))
    }
}
