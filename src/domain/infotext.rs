//! The parameters of a picture as text, in the format that AUTOMATIC1111 writes and that picture tools read.

use std::fmt::Write;

use super::{AestheticScores, GenerationRequest, PromptSyntax, Refiner, SizeConditioning};

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
        quoted(&request.model),
        request.noise_source.a1111_name()
    );
    write_numerics(&mut text, request);
    if let Some(sizes) = request.sizes.as_ref().filter(|sizes| **sizes != SizeConditioning::of(request.width, request.height)) {
        write_sizes(&mut text, sizes);
    }
    if let Some(scores) = request.aesthetics {
        let AestheticScores { aesthetic_score, negative_aesthetic_score } = scores;
        let _ = write!(text, ", Aesthetic score: {aesthetic_score}, Negative aesthetic score: {negative_aesthetic_score}");
    }
    if let Some(Refiner { refiner, refiner_start }) = &request.refiner {
        let _ = write!(text, ", Refiner: {}, Refiner switch at: {refiner_start}", quoted(refiner));
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

/// How the steps were made, where that is not the usual way.
fn write_numerics(text: &mut String, request: &GenerationRequest) {
    if request.prompt_syntax == PromptSyntax::Weighted {
        text.push_str(", Prompt syntax: weighted");
    }
    if let Some(eta) = request.eta {
        let _ = write!(text, ", Eta: {eta}");
    }
    if let Some(layers) = request.clip_skip {
        let _ = write!(text, ", Clip skip: {layers}");
    }
    if request.guidance_rescale > 0.0 {
        let _ = write!(text, ", CFG Rescale: {}", request.guidance_rescale);
    }
    if let [start, end] = request.guidance_interval
        && request.guidance_interval != [0.0, 1.0]
    {
        let _ = write!(text, ", Guidance start: {start}, Guidance end: {end}");
    }
    if request.cache_interval > 1 {
        let _ = write!(text, ", Cache interval: {}", request.cache_interval);
    }
    if request.fp8_linears {
        text.push_str(", FP8 linears: True");
    }
}

/// What Stable Diffusion XL was told, width or left first as in `Size`.
fn write_sizes(text: &mut String, sizes: &SizeConditioning) {
    let told = [
        ("Original size", Some(sizes.original_size)),
        ("Crop left-top", Some(sizes.crops_coords_top_left)),
        ("Target size", Some(sizes.target_size)),
        ("Negative original size", sizes.negative_original_size),
        ("Negative crop left-top", sizes.negative_crops_coords_top_left),
        ("Negative target size", sizes.negative_target_size),
    ];
    for (name, pair) in told {
        if let Some([down, across]) = pair {
            let _ = write!(text, ", {name}: {across}x{down}");
        }
    }
}

/// A name that would be taken for more than a name goes between quotes, as AUTOMATIC1111 writes it.
fn quoted(name: &str) -> String {
    if name.contains([',', ':', '\n', '"']) { serde_json::Value::from(name).to_string() } else { name.to_owned() }
}
