//! What a canvas is conditioned on: the rows that it brings to a UNet call, and how their outputs become one.

use std::sync::Arc;

use tch::Tensor;

use super::{
    extras::Extras,
    models::time_embedding::AddedCondition,
    prompt::{BranchEmbeds, PromptEmbeds, TextEmbeds},
};
use crate::domain::GenerationRequest;

/// One row of a UNet call.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// The prompt; none for a model that takes no text.
    pub(super) text: Option<Arc<TextEmbeds>>,
    /// Stable Diffusion XL's; all rows of a model have it, or none has.
    pub(super) added: Option<AddedCondition>,
    /// The embedded guidance scale of a distilled model, `[1, time_cond_proj_dim]`; all rows of a model have it, or none has.
    pub(super) timestep_cond: Option<Tensor>,
    /// What is put behind the latents' channels, `[1, C', h, w]` float32: the masked picture of an inpainting model, the picture of
    /// instruct-pix2pix. All rows of a model have one, or none has.
    pub(super) image_latents: Option<Tensor>,
}

impl Row {
    /// The same tensors, once more.
    fn shallow_clone(&self) -> Self {
        let once_more = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::shallow_clone);
        Self {
            text: self.text.clone(),
            added: self.added.as_ref().map(AddedCondition::shallow_clone),
            timestep_cond: once_more(&self.timestep_cond),
            image_latents: once_more(&self.image_latents),
        }
    }

    /// The row of a text that the picture should follow.
    pub(super) fn positive(text: &Arc<TextEmbeds>, extras: &Extras) -> Self {
        Self::new(text, extras, extras.time_ids.as_ref().map(|ids| &ids.positive))
    }

    /// The row of a text that guidance leads away from.
    pub(super) fn negative(text: &Arc<TextEmbeds>, extras: &Extras) -> Self {
        Self::new(text, extras, extras.time_ids.as_ref().map(|ids| &ids.negative))
    }

    fn new(text: &Arc<TextEmbeds>, extras: &Extras, time_ids: Option<&Tensor>) -> Self {
        let added = |(text_embeds, time_ids): (&Tensor, &Tensor)| AddedCondition {
            text_embeds: text_embeds.shallow_clone(),
            time_ids: time_ids.shallow_clone(),
        };
        Self {
            text: Some(Arc::clone(text)),
            added: text.pooled.as_ref().zip(time_ids).map(added),
            timestep_cond: extras.timestep_cond.as_ref().map(Tensor::shallow_clone),
            image_latents: None,
        }
    }
}

/// What every row of a canvas sees beside the latents.
#[derive(Debug)]
pub(super) enum RowPicture {
    /// Nothing.
    None,
    /// The same, `[1, C', h, w]`, whether guided or not: an inpainting model's mask and masked picture.
    Everywhere(Tensor),
    /// The picture that an instruct-pix2pix model is to change.
    Instruction {
        /// `[1, C, h, w]`
        image_latents: Tensor,
        /// `image_guidance_scale`
        scale: f64,
    },
}

impl RowPicture {
    /// The same tensor, once more.
    pub(super) fn shallow_clone(&self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Everywhere(picture) => Self::Everywhere(picture.shallow_clone()),
            Self::Instruction { image_latents, scale } => {
                Self::Instruction { image_latents: image_latents.shallow_clone(), scale: *scale }
            }
        }
    }

    fn latents(&self) -> Option<Tensor> {
        match self {
            Self::None => None,
            Self::Everywhere(latents) | Self::Instruction { image_latents: latents, .. } => Some(latents.shallow_clone()),
        }
    }
}

/// `scale · (rows[plus] − rows[minus])`: one direction of guidance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Term {
    /// A place in [`Conditioning::rows`].
    pub(super) plus: usize,
    /// A place in [`Conditioning::rows`].
    pub(super) minus: usize,
    pub(super) scale: f64,
}

/// `guidance_rescale` (Lin et al., 2023, section 3.4; diffusers' `rescale_noise_cfg`): against the overexposure that strong guidance
/// brings to models of zero terminal SNR.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rescale {
    /// The row whose standard deviation the guided output is to have.
    pub(super) row: usize,
    /// How much of that, above 0 to 1.
    pub(super) factor: f64,
}

/// The rows of a canvas in one step, at least one. Its guided output is `rows[0] + Σ scale · (rows[plus] − rows[minus])`.
#[derive(Debug)]
pub(super) struct Conditioning {
    pub(super) rows: Vec<Row>,
    pub(super) terms: Vec<Term>,
    pub(super) rescale: Option<Rescale>,
}

/// A prompt's branch: what it asks for, and how much it counts beside the others.
#[derive(Debug)]
pub(super) struct Branch {
    pub(super) row: Row,
    pub(super) weight: f64,
}

/// How strongly the prompt is followed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Guidance {
    /// `guidance_scale`
    pub(super) scale: f64,
    /// `guidance_rescale`; 0 is none.
    pub(super) rescale: f64,
}

impl Conditioning {
    /// `unconditional + Σ scale · weight · (branch − unconditional)`: with one branch classifier-free guidance (Ho and Salimans, 2022), with
    /// several composable diffusion (Liu et al., 2022, equation 11). The first branch is what the guided output is rescaled to.
    pub(super) fn guided(unconditional: Row, branches: Vec<Branch>, guidance: Guidance) -> Self {
        let term = |(plus, branch): (usize, &Branch)| Term { plus, minus: 0, scale: guidance.scale * branch.weight };
        let terms = (1..).zip(&branches).map(term).collect();
        let rescale = (guidance.rescale > 0.0).then_some(Rescale { row: 1, factor: guidance.rescale });
        let rows = std::iter::once(unconditional).chain(branches.into_iter().map(|branch| branch.row)).collect();
        Self { rows, terms, rescale }
    }

    /// No guidance: one branch's output as it is. Of several the first takes the place of the unconditional row, as AUTOMATIC1111 has it
    /// where it leaves that row out.
    pub(super) fn unguided(branches: Vec<Branch>) -> Self {
        let term = |(plus, branch): (usize, &Branch)| Term { plus, minus: 0, scale: branch.weight };
        let terms = (0..).zip(&branches).skip(1).map(term).collect();
        Self { rows: branches.into_iter().map(|branch| branch.row).collect(), terms, rescale: None }
    }
}

impl Conditioning {
    /// The same rows, each with its picture.
    fn seeing(mut self, picture: &RowPicture) -> Self {
        self.rows.iter_mut().for_each(|row| row.image_latents = picture.latents());
        self
    }

    /// Guidance towards the picture, too (Brooks et al., 2022, equation 3; diffusers' `StableDiffusionInstructPix2PixPipeline`):
    /// `none + Σ scale · (branch − picture) + image_guidance_scale · (picture − none)`, where `picture` has the picture without the prompt,
    /// and `none` zeros in its place.
    fn guided_by(mut self, picture: &RowPicture) -> Self {
        self = self.seeing(picture);
        let RowPicture::Instruction { image_latents, scale } = picture else { return self };
        let with_picture = self.rows.len();
        let none = &mut self.rows[0];
        let row = Row { image_latents: none.image_latents.take(), ..none.shallow_clone() };
        none.image_latents = Some(image_latents.zeros_like());
        self.rows.push(row);
        self.terms.iter_mut().for_each(|term| term.minus = with_picture);
        self.terms.push(Term { plus: with_picture, minus: 0, scale: *scale });
        self
    }
}

/// A canvas's conditioning step by step.
#[derive(Debug)]
pub(super) struct ConditioningSchedule {
    /// Never empty.
    conditionings: Vec<Conditioning>,
    /// Each step's place in `conditionings`.
    of_step: Vec<usize>,
}

impl ConditioningSchedule {
    /// The prompts' texts as editing has them in each of `steps` steps, with guidance in those of the request's interval and without in the
    /// others; `picture` in all.
    pub(super) fn of(
        (request, steps): (&GenerationRequest, u32),
        embeds: &PromptEmbeds,
        (extras, picture): (&Extras, &RowPicture),
    ) -> Self {
        let (mut conditionings, mut of_step) = (Vec::new(), Vec::new());
        let mut made = Vec::new();
        for step in 0..steps {
            let texts = StepTexts::at((request, steps), embeds, step);
            let place = made.iter().position(|other| *other == texts).unwrap_or(made.len());
            if place == made.len() {
                conditionings.push(texts.conditioning(request, embeds, (extras, picture)));
                made.push(texts);
            }
            of_step.push(place);
        }
        Self { conditionings, of_step }
    }

    /// One row that says nothing, for a model that takes no text.
    pub(super) fn unconditional() -> Self {
        let row = Branch { row: Row::default(), weight: 1.0 };
        Self { conditionings: vec![Conditioning::unguided(vec![row])], of_step: Vec::new() }
    }

    /// Which conditioning step `step` has; equal places are the same one.
    pub(super) fn place(&self, step: usize) -> usize {
        self.of_step.get(step).copied().unwrap_or(0)
    }

    /// The conditioning of step `step`, counted from 0 over the steps that are run.
    pub(super) fn at(&self, step: usize) -> &Conditioning {
        &self.conditionings[self.place(step)]
    }
}

/// Which texts a step is conditioned on, by their places.
#[derive(Debug, PartialEq)]
struct StepTexts {
    branches: Vec<usize>,
    /// None in a step without guidance.
    negative: Option<usize>,
}

impl StepTexts {
    fn at((request, steps): (&GenerationRequest, u32), embeds: &PromptEmbeds, step: u32) -> Self {
        let place = |branch: &BranchEmbeds| branch.place(step as usize);
        let negative = embeds.negative_prompt.as_ref().filter(|_| request.is_guided(step, steps)).map(place);
        Self { branches: embeds.prompt.iter().map(place).collect(), negative }
    }

    fn conditioning(
        &self,
        request: &GenerationRequest,
        embeds: &PromptEmbeds,
        (extras, picture): (&Extras, &RowPicture),
    ) -> Conditioning {
        let branch = |(branch, &place): (&BranchEmbeds, &usize)| Branch {
            row: Row::positive(&branch.texts[place], extras),
            weight: branch.weight,
        };
        let branches = embeds.prompt.iter().zip(&self.branches).map(branch).collect();
        let negative = embeds.negative_prompt.as_ref().zip(self.negative).map(|(negative, place)| &negative.texts[place]);
        let guidance = Guidance { scale: request.guidance_scale, rescale: request.guidance_rescale };
        match negative {
            Some(negative) => Conditioning::guided(Row::negative(negative, extras), branches, guidance).guided_by(picture),
            None => Conditioning::unguided(branches).seeing(picture),
        }
    }
}
