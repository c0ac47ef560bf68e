//! The same picture in any company, bit for bit: the CPU in float32 and, where it multiplies that, in bfloat16.

use std::path::{Path, PathBuf};

use easel::{
    diffusion::{
        Canvas, EngineSettings, GpuSettings, LoadError, ModelFolder, Precision, ResidencySettings, StableDiffusion, VaeTiling,
        describe_models,
    },
    dispatch::ports::{CanvasState, Engine, IntoRgb, PaintOrder},
    domain::{ModelInfo, Submission},
};
use image::RgbImage;
use serde_json::{Value, json};

use crate::golden::copy_folder;

struct Studio {
    engine: StableDiffusion,
    models: Vec<ModelInfo>,
}

impl Studio {
    fn open(path: PathBuf) -> Self {
        Self::with(&[("demo", path)])
    }

    fn with(folders: &[(&str, PathBuf)]) -> Self {
        Self::in_dtype(folders, Precision::Float32).unwrap()
    }

    /// Fails where this processor cannot keep the promise in that dtype.
    fn in_dtype(folders: &[(&str, PathBuf)], dtype: Precision) -> Result<Self, LoadError> {
        Self::of(folders.iter().map(|(name, path)| ModelFolder::new(*name, path)).collect(), dtype)
    }

    fn of(models: Vec<ModelFolder>, dtype: Precision) -> Result<Self, LoadError> {
        let infos = describe_models(&models).unwrap();
        let settings = EngineSettings {
            device: "cpu".to_owned(),
            dtype,
            batch_invariant: Some(true),
            gpu: GpuSettings::default(),
            threads: 0,
            vae_tiling: VaeTiling::Auto,
            vae_memory: None,
            prompt_cache: 64 << 20,
            prompt_kv_cache: 256 << 20,
            models,
            residency: ResidencySettings::default(),
        };
        Ok(Self { engine: StableDiffusion::load(&settings)?, models: infos })
    }

    fn begin(&mut self, body: &Value) -> Vec<Canvas> {
        let submission = Submission::parse(body.clone(), &self.models, 0).unwrap();
        let images = submission.request.num_images;
        let order = PaintOrder::of(submission).unwrap();
        self.engine.begin(&order, 0..images).unwrap().canvases
    }

    fn step(&mut self, canvases: &mut [&mut Canvas]) {
        self.engine.step(canvases).unwrap().into_iter().for_each(|answer| answer.unwrap());
    }

    /// Paints each canvas with the device to itself.
    fn paint_alone(&mut self, body: &Value) -> Vec<Finished> {
        let mut canvases = self.begin(body);
        for canvas in &mut canvases {
            while !canvas.is_done() {
                self.step(&mut [&mut *canvas]);
            }
        }
        self.finish(&canvases)
    }

    /// Paints all bodies together; each joins one step after the one before it, at the front of the batch, and leaves when it is done.
    fn paint_together(&mut self, bodies: &[Value]) -> Vec<Vec<Finished>> {
        let mut paintings: Vec<Vec<Canvas>> = Vec::new();
        let mut waiting = bodies.iter();
        loop {
            let joined = waiting.next().map(|body| self.begin(body));
            let new = joined.is_some();
            paintings.extend(joined);
            let mut unfinished: Vec<&mut Canvas> =
                paintings.iter_mut().rev().flatten().filter(|canvas| !canvas.is_done()).collect();
            if unfinished.is_empty() && !new {
                break;
            }
            while let Some(key) = unfinished.first().map(|canvas| canvas.batch_key()) {
                let (mut batch, others) = unfinished.into_iter().partition::<Vec<_>, _>(|canvas| canvas.batch_key() == key);
                self.step(&mut batch);
                unfinished = others;
            }
        }
        paintings.iter().map(|canvases| self.finish(canvases)).collect()
    }

    fn finish(&mut self, canvases: &[Canvas]) -> Vec<Finished> {
        let frames = self.engine.finish(&canvases.iter().collect::<Vec<_>>()).unwrap();
        let pictures = frames.into_iter().map(|frame| frame.into_rgb().unwrap());
        canvases.iter().map(|canvas| canvas.latents().unwrap().1).zip(pictures).collect()
    }
}

type Finished = (Vec<f32>, RgbImage);

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn picture(name: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    STANDARD.encode(std::fs::read(golden(name)).unwrap())
}

/// Different prompts, seeds, guidance, step counts, schedulers and strengths, with img2img and several pictures.
fn company(width: u32, height: u32) -> Vec<Value> {
    let (image, mask) = (picture("init-house.png"), picture("mask-disc.png"));
    let mut bodies = vec![
        json!({"prompt": "a purple cat in the snow", "seed": 1, "num_inference_steps": 5, "scheduler": "ddim"}),
        json!({"prompt": "a red house", "seed": 2, "num_inference_steps": 7, "scheduler": "euler", "guidance_scale": 1}),
        json!({"prompt": "an orange boat at sunset", "seed": 3, "num_inference_steps": 6, "scheduler": "dpmpp_2m", "guidance_scale": 12}),
        json!({"prompt": "a star", "negative_prompt": "black", "seed": 4, "num_inference_steps": 9, "scheduler": "euler_karras",
               "image": image, "strength": 0.5}),
        json!({"prompt": "a green tree", "seed": 6, "num_inference_steps": 6, "guidance_rescale": 0.7, "guidance_interval": [0.2, 0.7]}),
        json!({"prompt": "a (red:1.4) [house|star] AND snow :0.6 AND [tree:boat:0.5]", "negative_prompt": "[black:ugly:2]", "seed": 8,
               "prompt_syntax": "weighted", "num_inference_steps": 6, "clip_skip": 2}),
        json!({"prompt": "a pink heart", "seed": 8, "num_inference_steps": 5, "scheduler": "euler", "image": image, "mask_image": mask,
               "mask_blur": 3}),
        json!({"prompt": "a brown mushroom", "seed": 10, "num_inference_steps": 7, "cache_interval": 3, "guidance_interval": [0, 0.6]}),
        json!({"prompt": "a [red:blue:0.5] fish", "seed": 11, "num_inference_steps": 6, "cache_interval": 2, "prompt_syntax": "weighted",
               "scheduler": "heun", "num_images": 2}),
        json!({"prompt": "a white moon", "seed": 12, "num_inference_steps": 7, "cache_interval": 3, "guidance_scale": 1}),
        json!({"prompt": "a teal robot", "seed": 5, "num_inference_steps": 4, "scheduler": "dpmpp_2m_karras", "num_images": 3}),
    ];
    for body in &mut bodies {
        (body["width"], body["height"]) = (json!(width), json!(height));
    }
    bodies
}

fn same_alone_and_together(width: u32, height: u32) {
    same_bits(Studio::open(demo()), company(width, height), &format!("{width} × {height}"));
}

fn same_bits(mut studio: Studio, bodies: Vec<Value>, what: &str) {
    let together = studio.paint_together(&bodies);
    for (body, together) in bodies.iter().zip(together) {
        let alone = studio.paint_alone(body);
        assert_eq!(alone.len(), together.len());
        for ((latents, picture), (others, other)) in alone.iter().zip(&together) {
            let same = latents.iter().zip(others).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{what}: the latents of {} depend on the company", body["prompt"]);
            assert!(picture == other, "{what}: the picture of {} depends on the company", body["prompt"]);
        }
    }
}

#[test]
fn a_canvas_has_the_same_bits_alone_and_in_a_mixed_batch() {
    same_alone_and_together(128, 128);
}

#[test]
fn in_bfloat16_a_canvas_has_the_same_bits_alone_and_in_a_mixed_batch_or_the_promise_is_not_given() {
    // Large enough for the attention kernel to be called.
    let bodies: Vec<Value> = company(192, 192).into_iter().take(4).collect();
    match Studio::in_dtype(&[("demo", demo())], Precision::Bfloat16) {
        Ok(studio) => same_bits(studio, bodies, "bfloat16"),
        Err(error) => assert!(error.to_string().contains("AVX-512 BF16"), "{error}"),
    }
}

#[test]
fn products_in_fp8_have_the_same_bits_alone_and_beside_others_in_fp8_and_exact_ones() {
    let folder = ModelFolder { fp8_linears: true, ..ModelFolder::new("demo", demo()) };
    let mut bodies: Vec<Value> = company(128, 128).into_iter().take(6).collect();
    for (place, body) in bodies.iter_mut().enumerate() {
        body["fp8_linears"] = json!(place != 2);
    }
    same_bits(Studio::of(vec![folder], Precision::Float32).unwrap(), bodies, "fp8");
}

/// A small model that is laid over another.
fn laid_over(name: &str) -> (tempfile::TempDir, Studio) {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&golden("tiny-sd2"), folder.path());
    copy_folder(&golden(name), folder.path());
    let studio = Studio::open(folder.path().to_owned());
    (folder, studio)
}

#[test]
fn an_inpainting_models_canvas_has_the_same_bits_alone_and_in_a_mixed_batch() {
    let (_folder, studio) = laid_over("tiny-inpaint");
    let (image, mask) = (picture("init-house.png"), picture("mask-disc.png"));
    let sized = |more: Value| {
        let mut body = json!({"prompt": "a red house", "width": 128, "height": 128, "num_inference_steps": 4});
        more.as_object().unwrap().iter().for_each(|(field, value)| body[field] = value.clone());
        body
    };
    let bodies = vec![
        sized(json!({"image": image, "mask_image": mask, "seed": 1})),
        sized(json!({"seed": 2, "scheduler": "ddim", "guidance_scale": 1})),
        sized(json!({"image": image, "strength": 0.5, "seed": 3, "num_images": 2})),
        sized(json!({"image": image, "mask_image": mask, "strength": 0.6, "mask_blur": 9, "seed": 4, "scheduler": "dpmpp_2m"})),
    ];
    same_bits(studio, bodies, "inpainting");
}

#[test]
fn an_instruct_pix2pix_models_canvas_has_the_same_bits_alone_and_in_a_mixed_batch() {
    let (_folder, studio) = laid_over("tiny-edit");
    let image = picture("init-house.png");
    let bodies = vec![
        json!({"prompt": "a blue sky", "image": image, "seed": 1, "num_inference_steps": 4, "image_guidance_scale": 2}),
        json!({"prompt": "a red house", "image": image, "seed": 2, "num_inference_steps": 3, "guidance_scale": 1, "scheduler": "ddim"}),
        json!({"prompt": "a star", "image": image, "seed": 3, "num_inference_steps": 5, "num_images": 2, "guidance_interval": [0.2, 0.7]}),
    ];
    same_bits(studio, bodies, "instruct-pix2pix");
}

#[test]
fn a_canvas_of_320_by_256_has_the_same_bits_alone_and_in_a_mixed_batch() {
    same_alone_and_together(320, 256);
}

#[test]
fn canvases_of_latent_diffusion_and_of_models_without_text_have_the_same_bits_alone_and_in_a_mixed_batch() {
    for (folder, side) in [("tiny-ldm", 64), ("tiny-ddpm", 64), ("tiny-ddim", 32), ("tiny-ldm-faces", 128)] {
        let texts = [
            "prompt",
            "negative_prompt",
            "prompt_syntax",
            "clip_skip",
            "guidance_scale",
            "guidance_rescale",
            "guidance_interval",
            "cache_interval",
        ];
        let mut bodies = company(side, side);
        for body in bodies.iter_mut().filter_map(Value::as_object_mut) {
            body.retain(|field, _| folder == "tiny-ldm" || !texts.contains(&field.as_str()));
        }
        let name = format!("tests/golden/{folder}");
        let studio = Studio::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(&name));
        same_bits(studio, bodies, &name);
    }
}

#[test]
fn a_canvas_off_the_unets_grid_has_the_same_bits_alone_and_in_a_mixed_batch() {
    same_alone_and_together(104, 136);
}

#[test]
fn schedulers_of_every_kind_keep_their_bits_in_one_batch() {
    let names = [
        "heun",
        "ddim",
        "euler_ancestral",
        "unipc",
        "dpmpp_sde_karras",
        "pndm",
        "lcm",
        "dpmpp_3m_sde",
        "lms_beta",
        "dpm2_ancestral",
        "deis",
        "dpmpp_2s_ancestral_exponential",
        "tcd",
        "ddpm",
        "ipndm_sgm_uniform",
    ];
    let body = |(seed, name): (usize, &&str)| {
        json!({"prompt": format!("a red house by {name}"), "seed": seed, "scheduler": name, "num_inference_steps": 4 + seed % 4,
               "guidance_scale": 1 + seed % 3, "width": 64, "height": 64, "eta": if *name == "ddim" { json!(0.7) } else { Value::Null }})
    };
    same_bits(Studio::open(demo()), names.iter().enumerate().map(body).collect(), "schedulers");
}

#[test]
fn a_canvas_of_stable_diffusion_xl_has_the_same_bits_alone_and_with_others_that_a_refiner_takes_over() {
    let studio = Studio::with(&[("tiny-sdxl", golden("tiny-sdxl")), ("tiny-sdxl-refiner", golden("tiny-sdxl-refiner"))]);
    let mut bodies = company(104, 136);
    let refiner = json!("tiny-sdxl-refiner");
    (bodies[0]["refiner"], bodies[0]["refiner_start"]) = (refiner.clone(), json!(0.5));
    (bodies[3]["refiner"], bodies[3]["aesthetic_score"]) = (refiner.clone(), json!(9));
    bodies[2]["original_size"] = json!([33, 1999]);
    bodies
        .push(json!({"model": refiner, "prompt": "a red house", "seed": 8, "width": 104, "height": 136, "image": picture("init-house.png")}));
    same_bits(studio, bodies, "Stable Diffusion XL");
}
