//! The UNet of a model, whichever kind it is.

use std::cell::RefCell;

use tch::Tensor;

use super::{
    deep_cache::{Depth, Predicted},
    device::Placement,
    error::LoadError,
    files::ModelFiles,
    graphs::{CudaRecorder, Graphs, Recorder},
    layers, meter,
    models::{
        config::UNetConfig,
        unet::{UNet2DConditionModel, UNetCondition},
        unet_input::UNetInput,
        unet_prompt::UNetPrompt,
        unet2d::UNet2DModel,
        unet2d_config::UNet2DConfig,
    },
    prompt::TextEmbeds,
    prompt_kv::PromptKvCache,
};

/// diffusers' class of a UNet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UNetClass {
    /// `UNet2DConditionModel`: it is told the prompt.
    Condition,
    /// `UNet2DModel`: it is told the timestep and nothing else.
    Plain,
}

/// What a UNet's config says of the samples that it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Samples {
    pub(super) in_channels: i64,
    pub(super) out_channels: i64,
    /// Height and width that it was trained for; 0 where the config does not say.
    pub(super) size: [u32; 2],
    /// Sides must be multiples of this.
    pub(super) grid: u32,
    pub(super) takes_text: bool,
}

impl UNetClass {
    /// Reads the UNet's config.
    pub(super) fn samples(self, files: &ModelFiles) -> Result<Samples, LoadError> {
        Ok(match self {
            Self::Condition => {
                let UNetConfig { in_channels, out_channels, sample_size, .. } = UNetConfig::read(files)?;
                Samples { in_channels, out_channels, size: [u32::try_from(sample_size).unwrap_or(0); 2], grid: 1, takes_text: true }
            }
            Self::Plain => {
                let config = UNet2DConfig::read(files)?;
                let UNet2DConfig { in_channels, out_channels, .. } = config;
                Samples { in_channels, out_channels, size: config.size(), grid: config.grid(), takes_text: false }
            }
        })
    }
}

impl Samples {
    /// What the UNet sees besides the latents, or what is wrong with its channels. `latents` has the first stage's; none where it moves pixels.
    pub(super) fn input(self, latents: Option<i64>) -> Result<UNetInput, String> {
        let Self { in_channels, out_channels, takes_text, .. } = self;
        match (takes_text, latents) {
            (true, Some(latents)) => UNetInput::of(in_channels, out_channels, latents),
            (_, Some(latents)) if in_channels == latents && out_channels == latents => Ok(UNetInput::Latents),
            (_, None) if in_channels == out_channels && [1, 3].contains(&in_channels) => Ok(UNetInput::Latents),
            _ => Err(format!(
                "the UNet takes {in_channels} channels and gives {out_channels}; supported are models without text that take and give as many as \
                 their latents have, or grey pixels (1) or coloured ones (3)"
            )),
        }
    }
}

/// Predicts the noise, or what the model was trained to predict.
pub(super) struct UNet {
    network: Network,
    /// Where its calls are recorded.
    graphs: Option<RefCell<Graphs<CudaRecorder>>>,
    prompt_kv: PromptKvCache,
}

enum Network {
    Condition(Box<UNet2DConditionModel>),
    Plain(Box<UNet2DModel>),
}

impl UNet {
    /// Loads the part `unet`.
    pub(super) fn load(files: &ModelFiles, class: UNetClass, placement: Placement) -> Result<Self, LoadError> {
        let network = match class {
            UNetClass::Condition => UNet2DConditionModel::load(files, placement).map(Box::new).map(Network::Condition),
            UNetClass::Plain => UNet2DModel::load(files, placement).map(Box::new).map(Network::Plain),
        };
        Ok(Self { network: network?, graphs: None, prompt_kv: PromptKvCache::new(0) })
    }

    /// Gives the transformers a second set of weights, in fp8. A UNet that takes no text has none that it is asked for.
    ///
    /// # Errors
    /// When the device multiplies no 8-bit floats, or fails.
    pub(super) fn add_fp8(&mut self) -> Result<(), LoadError> {
        match &mut self.network {
            Network::Condition(unet) => unet.add_fp8(),
            Network::Plain(_) => Ok(()),
        }
    }

    /// That keeps so many bytes of prompts' keys and values.
    pub(super) fn keeping(self, prompt_kv: u64) -> Self {
        Self { prompt_kv: PromptKvCache::new(prompt_kv), ..self }
    }

    /// What its cross-attentions are told of these texts, one a row, all of one length.
    ///
    /// # Errors
    /// When the device fails.
    pub(super) fn told(&self, texts: &[&TextEmbeds]) -> layers::Result<UNetPrompt> {
        if let (Network::Condition(unet), Some(text)) = (&self.network, texts.first())
            && self.prompt_kv.keeps(unet, text)
        {
            let made = texts.iter().map(|text| self.prompt_kv.of(unet, text)).collect::<layers::Result<Vec<_>>>()?;
            return Tensor::f_cat(&made, 0).map(UNetPrompt::KeysAndValues);
        }
        let states: Vec<&Tensor> = texts.iter().map(|text| &text.encoder_hidden_states).collect();
        Tensor::f_cat(&states, 0).map(UNetPrompt::HiddenStates)
    }

    /// Whose calls are recorded, if there is a place for that.
    pub(super) fn recorded(self, graphs: Option<Graphs<CudaRecorder>>) -> Self {
        Self { graphs: graphs.map(RefCell::new), ..self }
    }

    /// The config of a UNet that is told the prompt.
    pub(super) fn condition_config(&self) -> Option<&UNetConfig> {
        match &self.network {
            Network::Condition(unet) => Some(unet.config()),
            Network::Plain(_) => None,
        }
    }

    /// sample `[B, in, h, w]`, timesteps `[B]` (may be fractional) → model output `[B, out, h, w]`, and the deep feature where it is to be kept
    ///
    /// # Errors
    /// When the rows bring a condition and the UNet takes none, or the other way round; when a UNet that takes none is to be cut short; when
    /// the device fails.
    pub(super) fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        condition: Option<&UNetCondition>,
        depth: Depth,
    ) -> layers::Result<Predicted> {
        // What is replayed passes no meter.
        match &self.graphs {
            Some(graphs) if !meter::is_up() => {
                self.network.replayed(&mut graphs.borrow_mut(), (sample, timesteps), condition, depth)
            }
            Some(graphs) => {
                let call = || self.network.forward(sample, timesteps, condition, depth)?.packed();
                let packed = graphs.borrow_mut().rehearse(&call)?;
                self.network.unpacked(packed, sample, depth)
            }
            None => self.network.forward(sample, timesteps, condition, depth),
        }
    }
}

impl Network {
    fn forward(
        &self,
        sample: &Tensor,
        timesteps: &Tensor,
        condition: Option<&UNetCondition>,
        depth: Depth,
    ) -> layers::Result<Predicted> {
        let refusal = match (self, condition, depth) {
            (Self::Condition(unet), Some(condition), _) => return unet.forward(sample, timesteps, condition, depth),
            (Self::Plain(unet), None, Depth::Whole) => {
                return Ok(Predicted { model_output: unet.forward(sample, timesteps)?, deep: None });
            }
            (Self::Plain(_), None, _) => "the UNet is always run whole",
            (Self::Condition(_), None, _) => "the UNet asks for a prompt",
            (Self::Plain(_), Some(_), _) => "the UNet takes no prompt",
        };
        Err(tch::TchError::Shape(refusal.to_owned()))
    }

    /// What a call on this sample packed.
    fn unpacked(&self, packed: Tensor, sample: &Tensor, depth: Depth) -> layers::Result<Predicted> {
        match (self, depth) {
            (Self::Condition(unet), Depth::Keeping) => {
                let (_, _, height, width) = sample.size4()?;
                Predicted::unpacked(&packed, [unet.config().out_channels, height, width])
            }
            _ => Ok(Predicted { model_output: packed, deep: None }),
        }
    }

    /// [`Self::forward`], recorded and replayed.
    fn replayed<R: Recorder>(
        &self,
        graphs: &mut Graphs<R>,
        (sample, timesteps): (&Tensor, &Tensor),
        condition: Option<&UNetCondition>,
        depth: Depth,
    ) -> layers::Result<Predicted> {
        let mark = depth.mark(sample)?;
        let told = condition.map_or_else(|| Ok(Vec::new()), UNetCondition::tensors)?;
        let inputs: Vec<Tensor> = [sample.shallow_clone(), timesteps.shallow_clone()].into_iter().chain(told).chain(mark).collect();
        let packed = graphs.call(&inputs, &|inputs| {
            let [sample, timesteps, told @ ..] = inputs else {
                return Err(tch::TchError::Shape("a UNet without inputs".to_owned()));
            };
            let condition = condition.map(|condition| condition.with_tensors(told)).transpose()?;
            self.forward(sample, timesteps, condition.as_ref(), depth.read_from(told.last()))?.packed()
        });
        self.unpacked(packed?, sample, depth)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tch::{Device, Kind};

    use super::*;
    use crate::{
        diffusion::{graphs::tests::Again, layers::Products, models::time_embedding::AddedCondition, prompt::TextKey},
        sys::with_kernels_on_the_cpu,
    };

    const ON_CPU: Placement = Placement { device: Device::Cpu, kind: Kind::Float, batch_invariant: true };

    fn randn(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    fn condition(rows: i64, width: i64, is_xl: bool) -> UNetCondition {
        let added = || AddedCondition { text_embeds: randn(&[rows, 16]), time_ids: randn(&[rows, 6]) };
        UNetCondition {
            prompt: UNetPrompt::HiddenStates(randn(&[rows, 77, width])),
            added: is_xl.then(added),
            timestep_cond: None,
            products: Products::Exact,
        }
    }

    #[test]
    fn a_unet_that_is_told_keys_and_values_answers_what_it_answers_to_hidden_states() {
        for (model, width, is_xl) in [("tiny-sd1", 16, false), ("tiny-sdxl", 40, true)] {
            let files = ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(model)).unwrap();
            let unet = UNet::load(&files, UNetClass::Condition, ON_CPU).unwrap().keeping(1 << 24);
            let texts = [3, 4].map(|key| TextEmbeds {
                key: TextKey::Zeros(key),
                encoder_hidden_states: randn(&[1, 77, width]),
                pooled: None,
            });
            let states = texts.each_ref().map(|text| &text.encoder_hidden_states);
            let prompt = UNetPrompt::HiddenStates(Tensor::cat(&states, 0));
            let told = UNetCondition { prompt, ..condition(2, width, is_xl) };
            let (sample, timesteps) = (randn(&[2, 4, 16, 24]), Tensor::from_slice(&[700_f32, 3.5]));
            let mut graphs = Graphs::new(Again::default(), u64::MAX);
            let expected = unet.forward(&sample, &timesteps, Some(&told), Depth::Whole).unwrap().model_output;
            let prompt = unet.told(&texts.each_ref()).unwrap();
            assert!(matches!(prompt, UNetPrompt::KeysAndValues(_)));
            let told = UNetCondition { prompt, ..told };
            for _ in 0..3 {
                let got = unet.network.replayed(&mut graphs, (&sample, &timesteps), Some(&told), Depth::Whole).unwrap();
                assert_eq!(got.model_output, expected, "{model}");
            }
        }
    }

    #[test]
    fn a_replayed_unet_answers_what_it_would_have_answered() {
        for (model, width, is_xl) in [("tiny-sd1", 16, false), ("tiny-sdxl", 40, true)] {
            let files = ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(model)).unwrap();
            let unet = UNet::load(&files, UNetClass::Condition, ON_CPU).unwrap();
            let recorder = Again::default();
            let done = std::rc::Rc::clone(&recorder.done);
            let mut graphs = Graphs::new(recorder, u64::MAX);
            for rows in [2, 2, 2, 3, 3] {
                let (sample, timesteps) = (randn(&[rows, 4, 16, 24]), Tensor::rand([rows], (Kind::Float, Device::Cpu)) * 1000.0);
                let condition = condition(rows, width, is_xl);
                let expected = unet.forward(&sample, &timesteps, Some(&condition), Depth::Whole).unwrap();
                let got = unet.network.replayed(&mut graphs, (&sample, &timesteps), Some(&condition), Depth::Whole).unwrap();
                assert_eq!(got.model_output, expected.model_output, "{model}, {rows} rows");
            }
            assert_eq!(*done.borrow(), ["rehearse", "record", "replay", "replay", "rehearse", "record", "replay"]);
        }
    }

    #[test]
    fn whole_calls_calls_that_keep_and_shallow_ones_have_recordings_of_their_own() {
        let files = ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-sd1")).unwrap();
        let unet = UNet::load(&files, UNetClass::Condition, ON_CPU).unwrap();
        let mut graphs = Graphs::new(Again::default(), u64::MAX);
        for round in 0..3 {
            let (sample, timesteps) = (randn(&[2, 4, 16, 24]), Tensor::rand([2], (Kind::Float, Device::Cpu)) * 1000.0);
            let condition = condition(2, 16, false);
            let mut replay = |depth| unet.network.replayed(&mut graphs, (&sample, &timesteps), Some(&condition), depth).unwrap();
            let call = |depth| unet.forward(&sample, &timesteps, Some(&condition), depth).unwrap();
            let (whole, kept) = (replay(Depth::Whole), replay(Depth::Keeping));
            assert!(whole.deep.is_none());
            assert_eq!(whole.model_output, call(Depth::Whole).model_output, "round {round}");
            assert_eq!(kept.model_output, whole.model_output, "round {round}");
            let deep = kept.deep.unwrap();
            assert_eq!(Some(&deep), call(Depth::Keeping).deep.as_ref(), "round {round}");
            let other = Tensor::randn_like(&deep);
            let shallow = replay(Depth::Shallow(&other)).model_output;
            assert_eq!(shallow, call(Depth::Shallow(&other)).model_output, "round {round}");
            assert_ne!(shallow, whole.model_output);
            assert_eq!(
                replay(Depth::Shallow(&deep)).model_output,
                whole.model_output,
                "on its own feature a shallow call is a whole one"
            );
        }
    }

    #[test]
    fn calls_with_products_in_fp8_are_near_the_exact_ones_and_have_recordings_of_their_own() {
        for (model, width, is_xl) in [("tiny-sd1", 16, false), ("tiny-sdxl", 40, true)] {
            let files = ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(model)).unwrap();
            let mut unet = UNet::load(&files, UNetClass::Condition, ON_CPU).unwrap();
            unet.add_fp8().unwrap();
            let mut graphs = Graphs::new(Again::default(), u64::MAX);
            for round in 0..3 {
                let (sample, timesteps) = (randn(&[2, 4, 16, 24]), Tensor::rand([2], (Kind::Float, Device::Cpu)) * 1000.0);
                let exact = condition(2, width, is_xl);
                let fp8 = UNetCondition { products: Products::Fp8, ..condition(2, width, is_xl) };
                let fp8 = fp8.with_tensors(&exact.tensors().unwrap()).unwrap();
                let call = |condition| unet.forward(&sample, &timesteps, Some(condition), Depth::Whole).unwrap().model_output;
                let (expected, near) = (call(&exact), call(&fp8));
                let error = (&near - &expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
                assert!((1e-5..0.05).contains(&error), "{model} differs by {error}");
                for (condition, output) in [(&exact, &expected), (&fp8, &near)] {
                    let replayed = unet.network.replayed(&mut graphs, (&sample, &timesteps), Some(condition), Depth::Whole);
                    assert_eq!(&replayed.unwrap().model_output, output, "{model}, round {round}");
                    let replayed =
                        unet.network.replayed(&mut graphs, (&sample, &timesteps), Some(condition), Depth::Keeping).unwrap();
                    assert_eq!(&replayed.model_output, output, "{model}, round {round}");
                }
            }
        }
    }

    #[test]
    fn a_unet_with_kernels_of_its_own_answers_what_it_answers_without() {
        for (model, width, is_xl) in [("tiny-sd1", 16, false), ("tiny-sdxl", 40, true)] {
            let files = ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(model)).unwrap();
            let load = || UNet::load(&files, UNetClass::Condition, ON_CPU).unwrap();
            let (sample, timesteps) = (randn(&[2, 4, 8, 8]), Tensor::from_slice(&[700_f32, 3.5]));
            let condition = condition(2, width, is_xl);
            let run = |unet: UNet| unet.forward(&sample, &timesteps, Some(&condition), Depth::Whole).unwrap().model_output;
            let expected = run(load());
            let (got, launches) = with_kernels_on_the_cpu(|| run(load()));
            let error = (&got - &expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
            assert!(error < 1e-5, "{model} differs by {error}");
            for kernel in ["group_norm_apply_float", "geglu_float", "add_bias_residual_float"] {
                assert!(launches.iter().any(|launched| launched == kernel), "{model}: {kernel} is not among {launches:?}");
            }
        }
    }
}
