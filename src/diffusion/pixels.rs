//! Between pictures and tensors.

use std::{borrow::Cow, sync::Arc};

use image::{GrayImage, ImageBuffer, Pixel, RgbImage, imageops};
use tch::{Device, Kind, Tensor};

use super::{canvas::Check, error::engine_error, finite::FiniteRows, layers::Result, mask::Underlay, transfer::Download};
use crate::dispatch::ports::{EngineError, IntoRgb};

/// Pixels as the VAE's encoder takes them: `[1, 3, height, width]` float32 in −1..1.
pub(super) fn to_tensor(picture: &RgbImage, device: Device) -> Result<Tensor> {
    let size = [1, i64::from(picture.height()), i64::from(picture.width()), 3];
    in_range(&Tensor::f_from_data_size(picture.as_raw(), &size, Kind::Uint8)?.f_to_device(device)?)
}

/// A picture's brightness as a model of grey pictures takes it: `[1, 1, height, width]` float32 in −1..1.
pub(super) fn to_grey_tensor(picture: &GrayImage, device: Device) -> Result<Tensor> {
    let size = [1, i64::from(picture.height()), i64::from(picture.width()), 1];
    in_range(&Tensor::f_from_data_size(picture.as_raw(), &size, Kind::Uint8)?.f_to_device(device)?)
}

/// Bytes `[1, H, W, C]` → `[1, C, H, W]` float32 in −1..1
fn in_range(bytes: &Tensor) -> Result<Tensor> {
    bytes.f_permute([0, 3, 1, 2])?.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?.f_mul_scalar(2.0)?.f_sub_scalar(1.0)?.f_contiguous()
}

/// A picture or a mask in another size, by Lanczos' filter as PIL applies it, which diffusers' `VaeImageProcessor` uses: rows first, then
/// columns, with bytes between the two.
pub(super) fn resized<P>(picture: &ImageBuffer<P, Vec<u8>>, width: u32, height: u32) -> Cow<'_, ImageBuffer<P, Vec<u8>>>
where
    P: Pixel<Subpixel = u8> + 'static,
{
    if picture.dimensions() == (width, height) {
        return Cow::Borrowed(picture);
    }
    let rows = imageops::resize(picture, width, picture.height(), imageops::FilterType::Lanczos3);
    Cow::Owned(imageops::resize(&rows, width, height, imageops::FilterType::Lanczos3))
}

/// A picture on its way from the device, `[H, W, 3]` bytes. The device may still be painting it.
#[derive(Debug)]
pub struct Frame {
    bytes: Download,
    /// `[height, width]`
    size: [u32; 2],
    /// Whether its pixels were numbers, where nobody knows yet.
    finite: Option<FiniteRows>,
    underlay: Option<Arc<Underlay>>,
    /// Of the latents that it was made of, where the device had not answered by then.
    latents: Option<Check>,
}

impl Frame {
    /// Pixels `[3, H, W]` float32 in about −1..1 to bytes as diffusers does: clamp(x / 2 + 0.5, 0, 1) × 255, rounded to the nearest.
    pub(super) fn of(pixels: &Tensor) -> Result<Self> {
        let unit = pixels.f_div_scalar(2.0)?.f_add_scalar(0.5)?.f_clamp(0.0, 1.0)?;
        let bytes = unit.f_mul_scalar(255.0)?.f_round()?.f_permute([1, 2, 0])?.f_to_kind(Kind::Uint8)?.f_contiguous()?;
        let (height, width, _) = bytes.size3()?;
        Ok(Self {
            bytes: Download::start(&bytes)?,
            size: [height as u32, width as u32],
            finite: None,
            underlay: None,
            latents: None,
        })
    }

    /// [`Self::of`] pixels that may not be numbers. The CPU's are known to be: whoever made them has looked, which there costs no waiting.
    pub(super) fn checked(pixels: &Tensor) -> Result<Self> {
        let finite = if pixels.device() == Device::Cpu { None } else { Some(FiniteRows::of(pixels)?) };
        Ok(Self { finite, ..Self::of(pixels)? })
    }

    /// The picture with another under it.
    pub(super) fn over(self, underlay: Option<Arc<Underlay>>) -> Self {
        Self { underlay, ..self }
    }

    /// The picture of latents that may be no numbers. Whoever waits for the picture waits for that, too, and the device's thread need not.
    pub(super) fn of_latents(self, latents: Option<Check>) -> Self {
        Self { latents, ..self }
    }
}

impl IntoRgb for Frame {
    fn into_rgb(self) -> std::result::Result<RgbImage, EngineError> {
        self.latents.as_ref().map_or(Ok(()), Check::settle)?;
        // A device that does not answer is no picture's fault.
        if let Some(finite) = &self.finite
            && !finite.are_all_finite().map_err(|error| engine_error(&error))?
        {
            return Err(EngineError::PictureNotFinite);
        }
        let [height, width] = self.size;
        let bytes = self.bytes.bytes().map_err(|error| engine_error(&error))?;
        let mut rgb = RgbImage::from_raw(width, height, bytes)
            .ok_or_else(|| EngineError::Failed("a frame's pixels do not fill its size".to_owned()))?;
        if let Some(underlay) = &self.underlay {
            underlay.show_through(&mut rgb);
        }
        Ok(rgb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(finite: FiniteRows) -> Frame {
        let pixels = Tensor::zeros([3, 8, 8], (Kind::Float, Device::Cpu));
        Frame { finite: Some(finite), ..Frame::of(&pixels).unwrap() }
    }

    #[test]
    fn a_picture_of_latents_that_are_no_numbers_fails_by_the_step_that_made_them() {
        let latents = Tensor::zeros([2, 4, 8, 8], (Kind::Float, Device::Cpu));
        drop(latents.get(1).fill_(f64::NAN));
        let rows = Arc::new(FiniteRows::of(&latents).unwrap());
        let picture = |row| {
            let infinite = FiniteRows::of(&Tensor::from_slice(&[f32::NAN]).reshape([1, 1])).unwrap();
            frame(infinite).of_latents(Some(Check { rows: Arc::clone(&rows), row, step: 9 }))
        };
        assert_eq!(picture(1).into_rgb(), Err(EngineError::NotFinite { step: 9 }));
        assert_eq!(picture(0).into_rgb(), Err(EngineError::PictureNotFinite), "it was the VAE");
        let unanswered = Check { rows: Arc::new(FiniteRows::unanswered().unwrap()), row: 0, step: 9 };
        let error = picture(0).of_latents(Some(unanswered)).into_rgb().unwrap_err();
        assert!(matches!(error, EngineError::Failed(_)), "what the device says: {error:?}");
    }

    #[test]
    fn a_device_that_fails_is_not_taken_for_a_picture_that_is_no_numbers() {
        let pixels = Tensor::zeros([3, 8, 8], (Kind::Float, Device::Cpu));
        assert!(frame(FiniteRows::of(&pixels).unwrap()).into_rgb().is_ok());
        let infinite = FiniteRows::of(&pixels.full_like(f64::INFINITY)).unwrap();
        assert_eq!(frame(infinite).into_rgb(), Err(EngineError::PictureNotFinite));
        let error = frame(FiniteRows::unanswered().unwrap()).into_rgb().unwrap_err();
        assert!(matches!(error, EngineError::Failed(_)), "what the device says: {error:?}");
    }
}
