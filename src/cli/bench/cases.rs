//! Which cases are timed when the command line leaves the choice.

use crate::diffusion::{BenchCase, BenchPart};

const PARTS: [BenchPart; 5] = [BenchPart::TextEncoder, BenchPart::Unet, BenchPart::VaeDecode, BenchPart::Preview, BenchPart::Whole];
/// One step of Stable Diffusion XL at its own size takes two cores most of a minute.
const LARGEST_ON_CPU: u32 = 512;
const STEPS_ON_GPU: u32 = 30;
const STEPS_ON_CPU: u32 = 2;

/// What the command line says; what is empty is chosen here.
#[derive(Debug, Default)]
pub(super) struct Chosen {
    pub(super) parts: Vec<BenchPart>,
    pub(super) rows: Vec<u32>,
    pub(super) size: Option<u32>,
    pub(super) steps: Option<u32>,
    pub(super) canvases: Vec<u32>,
}

/// The cases of one model, in the order of a picture's parts. `own_size` is what the model paints by itself.
pub(super) fn cases(chosen: &Chosen, own_size: u32, is_gpu: bool, is_first: bool) -> Vec<BenchCase> {
    let size = chosen.size.or((!is_gpu && own_size > LARGEST_ON_CPU).then_some(LARGEST_ON_CPU)).unwrap_or(own_size);
    let rows: &[u32] = match (is_gpu, is_first) {
        (true, _) => &[1, 2, 4, 8, 16],
        (false, true) => &[1, 2, 4],
        (false, false) => &[1],
    };
    let canvases: &[u32] = match (is_gpu, is_first) {
        (true, _) => &[1, 8],
        (false, true) => &[1, 2],
        (false, false) => &[1],
    };
    let (rows, canvases) = (given_or(&chosen.rows, rows), given_or(&chosen.canvases, canvases));
    let steps = chosen.steps.unwrap_or(if is_gpu { STEPS_ON_GPU } else { STEPS_ON_CPU });
    let of_part = |part: &BenchPart| {
        let case = BenchCase { size: Some(size), ..BenchCase::new(*part) };
        match part {
            BenchPart::Unet => rows.iter().map(|&rows| BenchCase { rows, ..case }).collect(),
            BenchPart::Whole => canvases.iter().map(|&canvases| BenchCase { steps, canvases, ..case }).collect(),
            BenchPart::TextEncoder | BenchPart::VaeDecode | BenchPart::Preview => vec![case],
        }
    };
    given_or(&chosen.parts, &PARTS).iter().flat_map(of_part).collect()
}

fn given_or<'a, T>(given: &'a [T], else_these: &'a [T]) -> &'a [T] {
    if given.is_empty() { else_these } else { given }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_is_given_less_to_do_than_a_gpu() {
        let sizes_and_rows = |is_gpu, is_first| {
            let cases = cases(&Chosen::default(), 1024, is_gpu, is_first);
            assert!(PARTS.iter().all(|part| cases.iter().any(|case| case.part == *part)));
            let unet = cases.iter().filter(|case| case.part == BenchPart::Unet);
            unet.map(|case| (case.size, case.rows)).collect::<Vec<_>>()
        };
        assert_eq!(sizes_and_rows(false, true), [(Some(512), 1), (Some(512), 2), (Some(512), 4)]);
        assert_eq!(sizes_and_rows(false, false), [(Some(512), 1)]);
        assert_eq!(sizes_and_rows(true, false), [1, 2, 4, 8, 16].map(|rows| (Some(1024), rows)));
    }

    #[test]
    fn what_the_command_line_says_is_done() {
        let chosen = Chosen { parts: vec![BenchPart::Whole], rows: vec![3], size: Some(64), steps: Some(5), canvases: vec![3] };
        let whole = BenchCase { size: Some(64), steps: 5, canvases: 3, ..BenchCase::new(BenchPart::Whole) };
        assert_eq!(cases(&chosen, 512, false, true), [whole]);
    }
}
