//! The rows of a shared UNet call: which canvas each row belongs to, and how classifier-free guidance (Ho and Salimans, 2022) brings them
//! together again.

use tch::{Device, Tensor};

use super::{
    canvas::Canvas,
    layers::{Result, per_row},
};

/// The rows of one UNet call: two for a canvas with guidance (unconditional, then conditional), one for a canvas without.
pub(super) struct GuidanceRows {
    /// The canvas of each row.
    canvas: Vec<i64>,
    /// Each canvas's unconditional row; its conditional one when it has no guidance.
    unconditional: Vec<i64>,
    /// Each canvas's conditional row.
    conditional: Vec<i64>,
    guidance_scale: Vec<f64>,
    encoder_hidden_states: Tensor, // [rows, L, hidden]
}

impl GuidanceRows {
    pub(super) fn of(canvases: &[&mut Canvas]) -> Result<Self> {
        let (mut rows, mut embeds) = (Vec::new(), Vec::new());
        let (mut unconditional, mut conditional) = (Vec::new(), Vec::new());
        for (index, canvas) in (0..).zip(canvases) {
            unconditional.push(rows.len() as i64);
            if let Some(negative) = &canvas.negative_prompt_embeds {
                rows.push(index);
                embeds.push(negative);
            }
            conditional.push(rows.len() as i64);
            rows.push(index);
            embeds.push(&canvas.prompt_embeds);
        }
        let guidance_scale = canvases.iter().map(|canvas| canvas.guidance_scale).collect();
        Ok(Self { canvas: rows, unconditional, conditional, guidance_scale, encoder_hidden_states: Tensor::f_cat(&embeds, 0)? })
    }

    /// The prompts' embeddings, `[rows, L, hidden]`.
    pub(super) fn encoder_hidden_states(&self) -> &Tensor {
        &self.encoder_hidden_states
    }

    /// One value a canvas to one a row.
    pub(super) fn expand(&self, per_canvas: &[f64]) -> Vec<f64> {
        self.canvas.iter().map(|&index| per_canvas[index as usize]).collect()
    }

    /// `[canvases, …] → [rows, …]`
    pub(super) fn repeat(&self, per_canvas: &Tensor) -> Result<Tensor> {
        select(per_canvas, &self.canvas)
    }

    /// Model output `[rows, …] → [canvases, …]`: `unconditional + guidance_scale · (conditional − unconditional)`. Without guidance both are
    /// the same row and the difference is exactly 0.
    pub(super) fn combine(&self, model_output: &Tensor) -> Result<Tensor> {
        let unconditional = select(model_output, &self.unconditional)?;
        let difference = select(model_output, &self.conditional)?.f_sub(&unconditional)?;
        let scale = per_row(&self.guidance_scale, model_output.device())?;
        unconditional.f_add(&difference.f_mul(&scale)?)
    }
}

fn select(tensor: &Tensor, rows: &[i64]) -> Result<Tensor> {
    let device: Device = tensor.device();
    tensor.f_index_select(0, &Tensor::f_from_slice(rows)?.f_to_device(device)?)
}
