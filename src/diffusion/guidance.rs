//! The rows of a shared UNet call: which canvas each row belongs to, and how guidance brings them together again.
//!
//! Canvases of one call may have different numbers of rows and of terms. A canvas's bits do not depend on that: what it lacks is left out,
//! not added as zero.

use tch::{TchError, Tensor};

use super::{
    conditioning::{Conditioning, Rescale, Row},
    layers::{Products, Result},
    models::{time_embedding::AddedCondition, unet::UNetCondition},
    numbers::{Floats, Indices, Numbers, Uploaded},
    prompt::TextEmbeds,
    unet::UNet,
};

/// The rows of one UNet call, those of a canvas side by side.
pub(super) struct GuidanceRows<'a> {
    conditionings: Vec<&'a Conditioning>,
    /// The canvas of each row.
    canvas: Vec<i64>,
    /// Each canvas's first row.
    first: Vec<i64>,
    /// What the device is told of that.
    places: Places,
}

/// Places of rows and canvases, among the numbers of a step.
struct Places {
    canvas: Indices,
    first: Indices,
    terms: Vec<TermPlaces>,
}

/// The terms of one place of all canvases that have one there.
struct TermPlaces {
    canvases: Indices,
    plus: Indices,
    minus: Indices,
    scale: Floats,
}

impl<'a> GuidanceRows<'a> {
    /// One conditioning a canvas. Adds to the numbers of the step, which the other functions want on the device.
    pub(super) fn of(conditionings: Vec<&'a Conditioning>, numbers: &mut Numbers) -> Self {
        let (mut canvas, mut first) = (Vec::new(), Vec::new());
        for (index, conditioning) in (0..).zip(&conditionings) {
            first.push(canvas.len() as i64);
            canvas.extend(conditioning.rows.iter().map(|_| index));
        }
        let terms = conditionings.iter().map(|conditioning| conditioning.terms.len()).max().unwrap_or_default();
        let places = Places {
            canvas: numbers.indices(&canvas),
            first: numbers.indices(&first),
            terms: (0..terms).map(|place| TermPlaces::at(place, (&conditionings, &first), numbers)).collect(),
        };
        Self { conditionings, canvas, first, places }
    }

    /// What the UNet is told in each row; none when the model takes no text.
    pub(super) fn condition(&self, unet: &UNet, products: Products) -> Result<Option<UNetCondition>> {
        let texts: Vec<&TextEmbeds> = self.rows().filter_map(|row| row.text.as_deref()).collect();
        if !self.all_or_none(&texts)? {
            return Ok(None);
        }
        let text_embeds: Vec<&Tensor> = self.rows().filter_map(|row| row.added.as_ref()).map(|added| &added.text_embeds).collect();
        let time_ids: Vec<&Tensor> = self.rows().filter_map(|row| row.added.as_ref()).map(|added| &added.time_ids).collect();
        let added = match self.all_or_none(&text_embeds)? {
            true => Some(AddedCondition { text_embeds: Tensor::f_cat(&text_embeds, 0)?, time_ids: Tensor::f_cat(&time_ids, 0)? }),
            false => None,
        };
        let guidance: Vec<&Tensor> = self.rows().filter_map(|row| row.timestep_cond.as_ref()).collect();
        let timestep_cond = if self.all_or_none(&guidance)? { Some(Tensor::f_cat(&guidance, 0)?) } else { None };
        Ok(Some(UNetCondition { prompt: unet.told(&texts)?, added, timestep_cond, products }))
    }

    fn rows(&self) -> impl Iterator<Item = &'a Row> {
        self.conditionings.iter().flat_map(|conditioning| &conditioning.rows)
    }

    /// Whether every row has such a thing; an error when only some have.
    fn all_or_none<T>(&self, had: &[&T]) -> Result<bool> {
        match had.len() {
            0 => Ok(false),
            count if count == self.canvas.len() => Ok(true),
            count => {
                Err(TchError::Shape(format!("{count} of {} rows of a UNet call have what all or none should", self.canvas.len())))
            }
        }
    }

    /// Of something of every row, `[rows, …]`, what belongs to each canvas's, as a copy: nothing of the other rows' memory is held.
    pub(super) fn share_out(&self, tensor: &Tensor) -> Result<Vec<Tensor>> {
        let own = |(&first, conditioning): (&i64, &&Conditioning)| {
            tensor.f_narrow(0, first, conditioning.rows.len() as i64)?.f_to_dtype(tensor.kind(), false, true)
        };
        self.first.iter().zip(&self.conditionings).map(own).collect()
    }

    /// One value a canvas to one a row.
    pub(super) fn expand(&self, per_canvas: &[f64]) -> Vec<f64> {
        self.canvas.iter().map(|&index| per_canvas[index as usize]).collect()
    }

    /// What the UNet sees: the canvases' scaled latents `[canvases, C, h, w] → [rows, C + C', h, w]`, each row's own picture behind them.
    pub(super) fn model_input(&self, latents: &Tensor, numbers: &Uploaded) -> Result<Tensor> {
        let latents = latents.f_index_select(0, &numbers.indices(&self.places.canvas)?)?;
        let pictures: Vec<&Tensor> = self.rows().filter_map(|row| row.image_latents.as_ref()).collect();
        if self.all_or_none(&pictures)? { Tensor::f_cat(&[latents, Tensor::f_cat(&pictures, 0)?], 1) } else { Ok(latents) }
    }

    /// Model output `[rows, …] → [canvases, …]`: each canvas's guided output.
    pub(super) fn combine(&self, model_output: &Tensor, numbers: &Uploaded) -> Result<Tensor> {
        let select = |rows: &Indices| model_output.f_index_select(0, &numbers.indices(rows)?);
        let mut guided = select(&self.places.first)?;
        for TermPlaces { canvases, plus, minus, scale } in &self.places.terms {
            let term = select(plus)?.f_sub(&select(minus)?)?.f_mul(&numbers.per_row(scale)?)?;
            guided = guided.f_index_add(0, &numbers.indices(canvases)?, &term)?;
        }
        self.rescale(guided, model_output)
    }

    /// Each canvas by itself: the bits of a sum over a row may depend on how many rows there are.
    fn rescale(&self, guided: Tensor, model_output: &Tensor) -> Result<Tensor> {
        if self.conditionings.iter().all(|conditioning| conditioning.rescale.is_none()) {
            return Ok(guided);
        }
        let rows = (0..).zip(&self.conditionings).zip(&self.first).map(|((index, conditioning), first)| {
            let row = guided.f_narrow(0, index, 1)?;
            let Some(Rescale { row: reference, factor }) = conditioning.rescale else { return Ok(row) };
            rescale_noise_cfg(&row, &model_output.f_narrow(0, first + reference as i64, 1)?, factor)
        });
        Tensor::f_cat(&rows.collect::<Result<Vec<_>>>()?, 0)
    }
}

/// diffusers' `rescale_noise_cfg` on `[1, C, h, w]`: `factor · guided · σ(reference) / σ(guided) + (1 − factor) · guided`.
fn rescale_noise_cfg(guided: &Tensor, reference: &Tensor, factor: f64) -> Result<Tensor> {
    let rescaled = guided.f_mul(&reference.f_std(true)?.f_div(&guided.f_std(true)?)?)?;
    rescaled.f_mul_scalar(factor)?.f_add(&guided.f_mul_scalar(1.0 - factor)?)
}

impl TermPlaces {
    /// The terms at `place` of those canvases that have one there.
    fn at(place: usize, (conditionings, first): (&[&Conditioning], &[i64]), numbers: &mut Numbers) -> Self {
        let (mut canvases, mut plus, mut minus, mut scale) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for ((index, conditioning), first) in (0..).zip(conditionings).zip(first) {
            let Some(term) = conditioning.terms.get(place) else { continue };
            canvases.push(index);
            plus.push(first + term.plus as i64);
            minus.push(first + term.minus as i64);
            scale.push(term.scale);
        }
        let [canvases, plus, minus] = [canvases, plus, minus].map(|places| numbers.indices(&places));
        Self { canvases, plus, minus, scale: numbers.floats(scale) }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::{
        super::conditioning::{Branch, Guidance, Row},
        *,
    };

    const CFG: Guidance = Guidance { scale: 5.0, rescale: 0.0 };

    fn row() -> Row {
        Row::default()
    }

    fn branches(weights: &[f64]) -> Vec<Branch> {
        weights.iter().map(|&weight| Branch { row: row(), weight }).collect()
    }

    fn outputs(rows: i64, seed: i64) -> Tensor {
        tch::manual_seed(seed);
        Tensor::randn([rows, 4, 13, 17], (Kind::Float, Device::Cpu))
    }

    fn combined(conditionings: Vec<&Conditioning>, outputs: &Tensor) -> Tensor {
        let mut numbers = Numbers::default();
        let rows = GuidanceRows::of(conditionings, &mut numbers);
        rows.combine(outputs, &numbers.upload(Device::Cpu).unwrap()).unwrap()
    }

    fn assert_close(got: &Tensor, expected: &Tensor) {
        let worst = (got - expected).abs().max().double_value(&[]);
        assert!(worst < 1e-5, "differs by {worst}");
    }

    #[test]
    fn one_branch_is_classifier_free_guidance_and_several_are_composed() {
        let outputs = outputs(3, 1);
        let [unconditional, first, second] = [0, 1, 2].map(|row| outputs.narrow(0, row, 1));
        let cfg = Conditioning::guided(row(), branches(&[1.0]), CFG);
        assert_close(&combined(vec![&cfg], &outputs.narrow(0, 0, 2)), &(&unconditional + 5.0 * (&first - &unconditional)));
        let composed = Conditioning::guided(row(), branches(&[1.0, -0.4]), CFG);
        let expected = &unconditional + 5.0 * (&first - &unconditional) - 2.0 * (&second - &unconditional);
        assert_close(&combined(vec![&composed], &outputs), &expected);
    }

    #[test]
    fn without_guidance_the_output_is_the_prompts_own() {
        let outputs = outputs(2, 2);
        let (first, second) = (outputs.narrow(0, 0, 1), outputs.narrow(0, 1, 1));
        assert_eq!(combined(vec![&Conditioning::unguided(branches(&[1.0]))], &first), first);
        let composed = combined(vec![&Conditioning::unguided(branches(&[1.0, 0.5]))], &outputs);
        assert_close(&composed, &(&first + 0.5 * (&second - &first)));
    }

    #[test]
    fn a_rescaled_output_keeps_the_prompts_standard_deviation() {
        let outputs = outputs(2, 3);
        let whole = Conditioning::guided(row(), branches(&[1.0]), Guidance { rescale: 1.0, ..CFG });
        let got = combined(vec![&whole], &outputs);
        assert_close(&got.std(true), &outputs.narrow(0, 1, 1).std(true));
        let guided = combined(vec![&Conditioning::guided(row(), branches(&[1.0]), CFG)], &outputs);
        let part = Conditioning::guided(row(), branches(&[1.0]), Guidance { rescale: 0.3, ..CFG });
        assert_close(&combined(vec![&part], &outputs), &(0.3 * got + 0.7 * guided));
    }

    #[test]
    fn a_canvas_has_the_same_bits_beside_canvases_of_more_or_fewer_rows() {
        let company = [
            Conditioning::unguided(branches(&[1.0])),
            Conditioning::guided(row(), branches(&[1.0, 0.7, -0.2]), Guidance { rescale: 0.7, ..CFG }),
            Conditioning::guided(row(), branches(&[1.0]), CFG),
            Conditioning::unguided(branches(&[1.0, 1.1])),
        ];
        let rows = company.iter().map(|conditioning| conditioning.rows.len() as i64);
        let outputs = outputs(rows.clone().sum(), 4);
        let together = combined(company.iter().collect(), &outputs);
        let mut first = 0;
        for ((place, conditioning), rows) in (0..).zip(&company).zip(rows) {
            let alone = combined(vec![conditioning], &outputs.narrow(0, first, rows));
            assert_eq!(alone, together.narrow(0, place, 1), "canvas {place}");
            first += rows;
        }
    }

    #[test]
    fn a_rows_picture_stands_behind_the_latents_channels() {
        let picture = outputs(1, 5);
        let conditioning = Conditioning::unguided(vec![Branch {
            row: Row { image_latents: Some(picture.shallow_clone()), ..row() },
            weight: 1.0,
        }]);
        let latents = outputs(2, 6);
        let model_input = |conditionings| {
            let mut numbers = Numbers::default();
            let rows = GuidanceRows::of(conditionings, &mut numbers);
            rows.model_input(&latents, &numbers.upload(Device::Cpu).unwrap())
        };
        let input = model_input(vec![&conditioning; 2]).unwrap();
        assert_eq!(input.size(), [2, 8, 13, 17]);
        assert_eq!((input.narrow(1, 0, 4), input.narrow(0, 1, 1).narrow(1, 4, 4)), (latents.shallow_clone(), picture));
        let without = Conditioning::unguided(branches(&[1.0]));
        assert!(model_input(vec![&conditioning, &without]).is_err());
    }
}
