//! A mask on pixels: what of a picture is painted anew, and what stays to the last bit.

use std::borrow::Cow;

use image::{GrayImage, RgbImage};
use tch::{Device, Kind, Tensor};

use super::{blur::gaussian_blur, layers::Result, pixels::resized};

/// From here on a mask's pixel is white to the networks; diffusers' `VaeImageProcessor.binarize`.
const WHITE: u8 = 128;

/// A mask in the size of the picture that is painted: 255 is painted anew, 0 stays, and what is between is mixed in the end.
#[derive(Debug)]
pub(super) struct Mask {
    shares: GrayImage,
}

impl Mask {
    /// Brings a mask to the picture's size, and then blurs it.
    pub(super) fn new(mask: &GrayImage, (width, height): (u32, u32), blur: u32) -> Self {
        let mut shares = resized(mask, width, height).into_owned();
        gaussian_blur(&mut shares, blur);
        Self { shares }
    }

    /// The mask as diffusers' `mask_processor` makes it: `[1, 1, H, W]` float32, 1 where the picture is painted anew and 0 elsewhere.
    pub(super) fn binary(&self, device: Device) -> Result<Tensor> {
        let binary: Vec<u8> = self.shares.as_raw().iter().map(|&share| u8::from(share >= WHITE)).collect();
        let size = [1, 1, i64::from(self.shares.height()), i64::from(self.shares.width())];
        Tensor::f_from_data_size(&binary, &size, Kind::Uint8)?.f_to_device(device)?.f_to_kind(Kind::Float)
    }
}

/// The picture under a painted one: what the mask leaves out of the painting is its.
#[derive(Debug)]
pub(super) struct Underlay {
    original: RgbImage,
    mask: Mask,
}

impl Underlay {
    /// Of a picture in the size of its mask.
    pub(super) fn new(original: Cow<'_, RgbImage>, mask: Mask) -> Self {
        Self { original: original.into_owned(), mask }
    }

    /// Puts the original back where the mask is black, byte for byte, and mixes the two by the mask's shares, rounded to the nearest, where
    /// it is grey. The latents are kept by cells of several pixels, and the VAE gives no picture back as it was.
    pub(super) fn show_through(&self, painted: &mut RgbImage) {
        for ((painted, original), share) in painted.pixels_mut().zip(self.original.pixels()).zip(self.mask.shares.iter()) {
            for (painted, original) in painted.0.iter_mut().zip(original.0) {
                *painted = mixed(*painted, original, *share);
            }
        }
    }
}

fn mixed(painted: u8, original: u8, share: u8) -> u8 {
    let sum = u32::from(painted) * u32::from(share) + u32::from(original) * u32::from(255 - share);
    ((sum + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use image::{Luma, Rgb};

    use super::*;

    #[test]
    fn black_is_the_originals_white_the_paintings_and_grey_a_share_of_each() {
        let original = RgbImage::from_fn(256, 1, |x, _| Rgb([x as u8, 255 - x as u8, 7]));
        let painted = RgbImage::from_pixel(256, 1, Rgb([200, 0, 255]));
        for share in [0, 1, 100, 127, 128, 254, 255] {
            let mask = Mask { shares: GrayImage::from_pixel(256, 1, Luma([share])) };
            let mut picture = painted.clone();
            Underlay::new(Cow::Borrowed(&original), mask).show_through(&mut picture);
            for (x, pixel) in (0..).zip(picture.pixels()) {
                for channel in 0..3 {
                    let (new, old) = (painted.get_pixel(x, 0).0[channel], original.get_pixel(x, 0).0[channel]);
                    let part = f64::from(share) / 255.0;
                    let expected = (f64::from(new) * part + f64::from(old) * (1.0 - part)).round() as u8;
                    assert_eq!(pixel.0[channel], expected, "share {share}, pixel {x}, channel {channel}");
                }
            }
        }
    }

    #[test]
    fn the_networks_see_white_from_half_on() {
        let shares = GrayImage::from_fn(256, 1, |x, _| Luma([x as u8]));
        let binary = Mask { shares }.binary(Device::Cpu).unwrap();
        assert_eq!(binary.size(), [1, 1, 1, 256]);
        let white = Vec::<f32>::try_from(binary.flatten(0, -1)).unwrap();
        assert!((0..=255_u8).zip(&white).all(|(share, &white)| white == if share >= 128 { 1.0 } else { 0.0 }));
    }
}
