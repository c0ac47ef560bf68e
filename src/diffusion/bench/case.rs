//! What is timed.

use serde::{Deserialize, Serialize};

/// The most rows and pictures of a case; the engine itself has no bound.
const MOST: u32 = 256;
/// The steps of a request.
const STEPS: u32 = 150;

/// A part of the work of a picture, as a server has it done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BenchPart {
    /// A prompt that is new to the engine, up to a canvas that can be stepped.
    TextEncoder,
    /// One step: a UNet call, guidance and the scheduler.
    Unet,
    /// From latents to a picture's bytes.
    VaeDecode,
    /// From latents to a small picture's bytes.
    Preview,
    /// From prompts to the bytes of all pictures, which move together.
    Whole,
}

/// One thing that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BenchCase {
    /// What.
    pub part: BenchPart,
    /// Rows of the UNet call of [`BenchPart::Unet`]: two for each picture with guidance, and an odd one without.
    #[serde(default = "two")]
    pub rows: u32,
    /// Width and height in pixels; none is the model's own.
    #[serde(default)]
    pub size: Option<u32>,
    /// Steps that are taken together in [`BenchPart::Unet`], and of each picture in [`BenchPart::Whole`].
    #[serde(default = "one")]
    pub steps: u32,
    /// Pictures of [`BenchPart::Whole`].
    #[serde(default = "one")]
    pub canvases: u32,
    /// Whether those have guidance.
    #[serde(default = "yes")]
    pub guided: bool,
}

fn one() -> u32 {
    1
}

fn two() -> u32 {
    2
}

fn yes() -> bool {
    true
}

impl BenchCase {
    /// A case with everything left out.
    pub fn new(part: BenchPart) -> Self {
        Self { part, rows: two(), size: None, steps: one(), canvases: one(), guided: yes() }
    }

    /// What is wrong with its numbers.
    pub(super) fn problem(&self) -> Option<String> {
        let numbers = [("rows", self.rows, MOST), ("steps", self.steps, STEPS), ("canvases", self.canvases, MOST)];
        let wrong = numbers.into_iter().find(|(_, number, most)| !(1..=*most).contains(number));
        wrong.map(|(name, number, most)| format!("{name}: must be a whole number from 1 to {most}, got {number}"))
    }

    /// The pictures that it begins with, each with guidance or without.
    pub(super) fn guided(&self) -> Vec<bool> {
        match self.part {
            BenchPart::Unet => {
                let guided = std::iter::repeat_n(true, self.rows as usize / 2);
                guided.chain((self.rows % 2 == 1).then_some(false)).collect()
            }
            BenchPart::Whole => vec![self.guided; self.canvases as usize],
            BenchPart::TextEncoder | BenchPart::VaeDecode | BenchPart::Preview => vec![false],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_pictures_with_guidance_and_an_odd_one_without() {
        let rows = |rows| BenchCase { rows, ..BenchCase::new(BenchPart::Unet) }.guided();
        assert_eq!([rows(1), rows(2), rows(5)], [vec![false], vec![true], vec![true, true, false]]);
    }
}
