//! The same picture in any company, bit for bit: the CPU in float32.

use std::path::Path;

use easel::{
    diffusion::{Canvas, EngineSettings, ModelFolder, Precision, StableDiffusion, describe_models},
    dispatch::ports::{CanvasState, Engine, IntoRgb, PaintOrder},
    domain::{ModelInfo, Submission},
};
use image::RgbImage;
use serde_json::{Value, json};

struct Studio {
    engine: StableDiffusion,
    models: Vec<ModelInfo>,
}

impl Studio {
    fn open() -> Self {
        Self::with(&["models/demo"])
    }

    fn with(folders: &[&str]) -> Self {
        let folder = |folder: &&str| ModelFolder {
            name: (*folder).to_owned(),
            path: Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            guidance_scale: None,
            num_inference_steps: None,
            max_size: None,
        };
        let models: Vec<ModelFolder> = folders.iter().map(folder).collect();
        let infos = describe_models(&models).unwrap();
        let settings =
            EngineSettings { device: "cpu".to_owned(), dtype: Precision::Float32, batch_invariant: None, threads: 0, models };
        Self { engine: StableDiffusion::load(&settings).unwrap(), models: infos }
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

fn init_picture() -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/init-house.png");
    STANDARD.encode(std::fs::read(file).unwrap())
}

/// Different prompts, seeds, guidance, step counts, schedulers and strengths, with img2img and several pictures.
fn company(width: u32, height: u32) -> Vec<Value> {
    let image = init_picture();
    let mut bodies = vec![
        json!({"prompt": "a purple cat in the snow", "seed": 1, "num_inference_steps": 5, "scheduler": "ddim"}),
        json!({"prompt": "a red house", "seed": 2, "num_inference_steps": 7, "scheduler": "euler", "guidance_scale": 1}),
        json!({"prompt": "an orange boat at sunset", "seed": 3, "num_inference_steps": 6, "scheduler": "dpmpp_2m", "guidance_scale": 12}),
        json!({"prompt": "a star", "negative_prompt": "black", "seed": 4, "num_inference_steps": 9, "scheduler": "euler_karras",
               "image": image, "strength": 0.5}),
        json!({"prompt": "a green tree", "seed": 6, "num_inference_steps": 6, "guidance_rescale": 0.7, "guidance_interval": [0.2, 0.7]}),
        json!({"prompt": "a teal robot", "seed": 5, "num_inference_steps": 4, "scheduler": "dpmpp_2m_karras", "num_images": 3}),
    ];
    for body in &mut bodies {
        (body["width"], body["height"]) = (json!(width), json!(height));
    }
    bodies
}

fn same_alone_and_together(width: u32, height: u32) {
    same_bits(Studio::open(), &company(width, height));
}

fn same_bits(mut studio: Studio, bodies: &[Value]) {
    let together = studio.paint_together(bodies);
    for (body, together) in bodies.iter().zip(together) {
        let alone = studio.paint_alone(body);
        assert_eq!(alone.len(), together.len());
        for ((latents, picture), (others, other)) in alone.iter().zip(&together) {
            let same = latents.iter().zip(others).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "the latents of {body} depend on the company");
            assert!(picture == other, "the picture of {body} depends on the company");
        }
    }
}

#[test]
fn a_canvas_has_the_same_bits_alone_and_in_a_mixed_batch() {
    same_alone_and_together(128, 128);
}

#[test]
fn a_canvas_of_320_by_256_has_the_same_bits_alone_and_in_a_mixed_batch() {
    same_alone_and_together(320, 256);
}

#[test]
fn canvases_of_latent_diffusion_and_of_models_without_text_have_the_same_bits_alone_and_in_a_mixed_batch() {
    for (folder, side) in [("tiny-ldm", 64), ("tiny-ddpm", 64), ("tiny-ddim", 32), ("tiny-ldm-faces", 128)] {
        let texts = ["prompt", "negative_prompt", "guidance_scale", "guidance_rescale", "guidance_interval"];
        let mut bodies = company(side, side);
        for body in bodies.iter_mut().filter_map(Value::as_object_mut) {
            body.retain(|field, _| folder == "tiny-ldm" || !texts.contains(&field.as_str()));
        }
        same_bits(Studio::with(&[&format!("tests/golden/{folder}")]), &bodies);
    }
}

#[test]
fn a_canvas_off_the_unets_grid_has_the_same_bits_alone_and_in_a_mixed_batch() {
    same_alone_and_together(104, 136);
}

#[test]
fn a_canvas_of_stable_diffusion_xl_has_the_same_bits_alone_and_with_others_that_a_refiner_takes_over() {
    let studio = Studio::with(&["tests/golden/tiny-sdxl", "tests/golden/tiny-sdxl-refiner"]);
    let mut bodies = company(104, 136);
    let refiner = json!("tests/golden/tiny-sdxl-refiner");
    (bodies[0]["refiner"], bodies[0]["refiner_start"]) = (refiner.clone(), json!(0.5));
    (bodies[3]["refiner"], bodies[3]["aesthetic_score"]) = (refiner.clone(), json!(9));
    bodies[2]["original_size"] = json!([33, 1999]);
    bodies
        .push(json!({"model": refiner, "prompt": "a red house", "seed": 8, "width": 104, "height": 136, "image": init_picture()}));
    same_bits(studio, &bodies);
}
