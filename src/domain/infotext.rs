//! The parameters of a picture as text, in the format that AUTOMATIC1111 writes and that picture tools read.

use std::fmt::Write;

use super::{GenerationRequest, Refiner};

/// The `parameters` text of picture `index` of a request: everything that made it, and nothing else, so that equal requests give
/// equal files.
pub fn infotext(request: &GenerationRequest, index: u32) -> String {
    let mut text = request.prompt.clone();
    if let Some(negative) = &request.negative_prompt {
        let _ = write!(text, "\nNegative prompt: {negative}");
    }
    let _ = write!(
        text,
        "\nSteps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {}x{}, Model: {}, RNG: {}",
        request.num_inference_steps,
        request.scheduler,
        request.guidance_scale,
        request.image_seed(index),
        request.width,
        request.height,
        request.model,
        request.noise_source.a1111_name()
    );
    if let Some(eta) = request.eta {
        let _ = write!(text, ", Eta: {eta}");
    }
    if let Some(layers) = request.clip_skip {
        let _ = write!(text, ", Clip skip: {layers}");
    }
    if request.guidance_rescale > 0.0 {
        let _ = write!(text, ", CFG Rescale: {}", request.guidance_rescale);
    }
    if let Some(Refiner { refiner, refiner_start }) = &request.refiner {
        let _ = write!(text, ", Refiner: {refiner}, Refiner switch at: {refiner_start}");
    }
    if let Some(img2img) = &request.img2img {
        let _ = write!(text, ", Denoising strength: {}, Init image: {}", img2img.strength, img2img.image.sha256);
    }
    if let Some(inpainting) = &request.inpainting {
        let _ = write!(text, ", Mask blur: {}, Mask image: {}", inpainting.mask_blur, inpainting.mask_image.sha256);
    }
    if let Some(scale) = request.image_guidance_scale {
        let _ = write!(text, ", Image CFG scale: {scale}");
    }
    text
}
