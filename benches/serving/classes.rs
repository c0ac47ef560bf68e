//! The jobs of a run: of four classes, mixed by chance, the same in every run.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

const SEED: u64 = 7;
const PROMPTS: [&str; 6] = [
    "a purple cat in the snow",
    "a big pink heart in a meadow",
    "an orange boat at sunset",
    "a teal robot to the left of a black cactus in the desert",
    "two yellow stars above a small green house",
    "a red mushroom under the stars",
];
const SCHEDULERS: [&str; 5] = ["ddim", "euler", "dpmpp_2m", "euler_karras", "dpmpp_2m_karras"];

/// Jobs that ask for the same amount of work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Class {
    pub(crate) name: &'static str,
    size: u32,
    steps: u32,
    guidance_scale: f64,
    /// How many of a hundred jobs.
    percent: u32,
}

/// All classes.
#[derive(Debug)]
pub(crate) struct Mix {
    pub(crate) classes: [Class; 4],
}

/// One job.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) class: &'static str,
    pub(crate) body: Value,
}

impl Mix {
    /// Jobs with few, the usual and many steps, and large pictures, half again as wide and high.
    pub(crate) fn new(size: u32, steps: &[u32]) -> Self {
        let [few, usual, many] = steps.try_into().expect("three numbers of steps");
        let class = |name, size, steps, guidance_scale, percent| Class { name, size, steps, guidance_scale, percent };
        let classes = [
            class("few steps, no guidance", size, few, 1.0, 20),
            class("usual", size, usual, 5.0, 50),
            class("many steps", size, many, 7.5, 15),
            class("large", size * 3 / 2 / 8 * 8, usual, 5.0, 15),
        ];
        Self { classes }
    }

    /// The first jobs of the mix.
    pub(crate) fn jobs(&self, count: usize) -> Vec<Job> {
        let mut random = StdRng::seed_from_u64(SEED);
        let draw = |index| {
            let mut place = random.random_range(0..100);
            let of_place = |class: &&Class| {
                let is_it = place < class.percent;
                place = place.saturating_sub(class.percent);
                is_it
            };
            self.classes.iter().find(of_place).expect("a hundred of a hundred").job(index)
        };
        (0..count).map(draw).collect()
    }
}

impl Class {
    pub(crate) fn job(&self, index: usize) -> Job {
        let body = json!({
            "prompt": PROMPTS[index % PROMPTS.len()],
            "scheduler": SCHEDULERS[index % SCHEDULERS.len()],
            "width": self.size,
            "height": self.size,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance_scale,
            "seed": index,
        });
        Job { class: self.name, body }
    }
}
