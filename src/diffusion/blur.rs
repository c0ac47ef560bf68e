//! Gaussian blur, byte for byte as PIL's `ImageFilter.GaussianBlur` has it, which diffusers' `VaeImageProcessor.blur` is: three box blurs
//! whose radius is a fraction (Gwosdek et al., 2011, "Theoretical foundations of Gaussian convolution by extended box filtering").

use image::{GrayImage, Luma};

const PASSES: u32 = 3;
/// Weights are whole numbers of 2^-24.
const ONE: u32 = 1 << 24;

/// Blurs a picture: lines first, then columns, with bytes between any two passes. `radius` is the standard deviation in pixels.
pub(super) fn gaussian_blur(picture: &mut GrayImage, radius: u32) {
    if radius == 0 {
        return;
    }
    let blur = BoxBlur::of_gaussian(radius as f32);
    let (width, height) = picture.dimensions();
    for y in 0..height {
        let line = (0..width).map(|x| picture.get_pixel(x, y).0[0]).collect();
        (0..).zip(blur.line(line)).for_each(|(x, value)| picture.put_pixel(x, y, Luma([value])));
    }
    for x in 0..width {
        let column = (0..height).map(|y| picture.get_pixel(x, y).0[0]).collect();
        (0..).zip(blur.line(column)).for_each(|(y, value)| picture.put_pixel(x, y, Luma([value])));
    }
}

/// A moving average over `2 · radius + 1` whole values and a share of one more at each end. Beyond its ends a line goes on as it ends.
struct BoxBlur {
    radius: isize,
    /// Of each whole value.
    weight: u64,
    /// Of the two at the ends.
    edge_weight: u64,
}

impl BoxBlur {
    /// The box that blurs as much in [`PASSES`] passes, by the paper's equations 7, 11 and 14, in float32 as PIL computes them.
    fn of_gaussian(radius: f32) -> Self {
        let variance = radius * radius / PASSES as f32;
        let length = (12.0 * f64::from(variance) + 1.0).sqrt() as f32;
        let whole = ((length - 1.0) / 2.0).floor();
        let share = (2.0 * whole + 1.0) * (whole * (whole + 1.0) - 3.0 * variance);
        let share = share / (6.0 * (variance - (whole + 1.0) * (whole + 1.0)));
        let radius = whole + share;
        let weight = (ONE as f32 / (radius * 2.0 + 1.0)) as u32;
        let edge_weight = (ONE - (radius as u32 * 2 + 1) * weight) / 2;
        Self { radius: radius as isize, weight: u64::from(weight), edge_weight: u64::from(edge_weight) }
    }

    fn line(&self, line: Vec<u8>) -> Vec<u8> {
        (0..PASSES).fold(line, |line, _| self.pass(&line))
    }

    fn pass(&self, line: &[u8]) -> Vec<u8> {
        let last = line.len() as isize - 1;
        let at = |index: isize| u64::from(line[index.clamp(0, last) as usize]);
        let mut sum: u64 = (-self.radius..=self.radius).map(at).sum();
        let average = |index: isize| {
            let (before, after) = (at(index - self.radius - 1), at(index + self.radius + 1));
            let blurred = (sum * self.weight + (before + after) * self.edge_weight + u64::from(ONE / 2)) / u64::from(ONE);
            sum = sum + after - at(index - self.radius);
            blurred as u8
        };
        (0..=last).map(average).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_blur_is_pils_byte_for_byte() {
        let cases: Value = serde_json::from_str(include_str!("../../tests/golden/blur.json")).unwrap();
        for case in cases["pictures"].as_array().unwrap() {
            let bytes = |key: &str| case[key].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect();
            let side = |key: &str| case[key].as_u64().unwrap() as u32;
            let mut picture = GrayImage::from_raw(side("width"), side("height"), bytes("pixels")).unwrap();
            gaussian_blur(&mut picture, side("radius"));
            assert_eq!(picture.into_raw(), bytes("blurred"), "{} × {}, radius {}", case["width"], case["height"], case["radius"]);
        }
    }
}
