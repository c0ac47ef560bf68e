//! What a safetensors file is, told by its keys.

use std::fmt;

use serde::Serialize;

use super::stored::Tensors;

/// What a safetensors file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// A whole model in the original layout.
    Checkpoint,
    /// A low-rank adapter of whatever sort (LoRA, LoHa, LoKr).
    Lora,
    /// A learned word.
    TextualInversion,
    /// A ControlNet.
    ControlNet,
    /// A picture-prompt adapter.
    IpAdapter,
    /// A T2I-Adapter.
    T2iAdapter,
    /// AnimateDiff's motion module.
    MotionModule,
    /// An autoencoder by itself.
    Vae,
    /// A UNet by itself, in diffusers' names.
    Unet,
    /// A text encoder by itself.
    TextEncoder,
    /// A diffusion transformer: Stable Diffusion 3, Flux and their kin.
    Transformer,
    /// Nothing of this.
    Unknown,
}

/// Where the UNet of a whole model begins.
const UNET_INPUT: &str = "model.diffusion_model.input_blocks.";
/// The first of these that fits decides: `(kind, at the beginning of a key, in a key)`.
const SIGNS: [(FileKind, &[&str], &[&str]); 10] = [
    (FileKind::Lora, &LORA.0, &LORA.1),
    (FileKind::Transformer, &["joint_blocks.", "double_blocks.", "transformer_blocks."], &[".joint_blocks.", ".double_blocks."]),
    (FileKind::ControlNet, &["control_model.", "controlnet_cond_embedding.", "input_hint_block."], &[]),
    (FileKind::IpAdapter, &["ip_adapter.", "image_proj."], &[]),
    (FileKind::T2iAdapter, &["adapter.body.", "body.0.", "body.1."], &[]),
    (FileKind::MotionModule, &[], &["motion_modules."]),
    (FileKind::Vae, &["first_stage_model.", "vae.encoder.", "encoder.down.", "encoder.down_blocks."], &[]),
    (FileKind::Unet, &["down_blocks.0.resnets.", "input_blocks.0.0."], &[]),
    (
        FileKind::TextEncoder,
        &["cond_stage_model.", "text_model.", "transformer.resblocks.", "encoder.layers.0.self_attn.", "conditioner."],
        &[],
    ),
    (FileKind::TextualInversion, &["emb_params", "string_to_param", "clip_l", "clip_g"], &[]),
];
/// How keys of adapters begin, and what they contain, as kohya, PEFT, LyCORIS and diffusers write them.
const LORA: ([&str; 2], [&str; 14]) = (
    ["lora_unet_", "lora_te"],
    [
        ".lora_down.",
        ".lora_up.",
        ".lora.down.",
        ".lora.up.",
        "_lora.down.",
        "_lora.up.",
        ".lora_A.",
        ".lora_B.",
        ".lora_mid.",
        ".lora_linear_layer.",
        ".hada_w1_a",
        ".lokr_w1",
        ".oft_diag",
        ".oft_blocks",
    ],
);
/// The widths of the text encoders' words.
const WORD_WIDTHS: [usize; 3] = [768, 1024, 1280];

impl FileKind {
    /// What holds these tensors.
    pub(super) fn of(tensors: &Tensors) -> Self {
        let shows = |begins: &[&str], contains: &[&str]| {
            let shows =
                |key: &str| begins.iter().any(|sign| key.starts_with(sign)) || contains.iter().any(|sign| key.contains(sign));
            tensors.keys().any(|key| shows(key))
        };
        let is_of_lora = |key: &str| LORA.1.iter().any(|sign| key.contains(sign));
        // Whatever else was left in a whole model.
        if tensors.keys().any(|key| key.starts_with(UNET_INPUT) && !is_of_lora(key)) {
            return Self::Checkpoint;
        }
        let found = SIGNS.iter().find(|(_, begins, contains)| shows(begins, contains)).map(|(kind, ..)| *kind);
        // diffusers saves a learned word under its own name.
        let is_word = || {
            tensors.len() == 1 && tensors.values().all(|word| word.shape().last().is_some_and(|side| WORD_WIDTHS.contains(side)))
        };
        found.unwrap_or_else(|| if is_word() { Self::TextualInversion } else { Self::Unknown })
    }

    /// Whether it changes a model instead of being one, or a part of one.
    pub fn is_adapter(self) -> bool {
        use FileKind::{ControlNet, IpAdapter, Lora, MotionModule, T2iAdapter, TextualInversion};
        matches!(self, Lora | TextualInversion | ControlNet | IpAdapter | T2iAdapter | MotionModule)
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkpoint => "a checkpoint in the original layout",
            Self::Lora => "a LoRA",
            Self::TextualInversion => "a textual inversion (a learned word)",
            Self::ControlNet => "a ControlNet",
            Self::IpAdapter => "an IP-Adapter",
            Self::T2iAdapter => "a T2I-Adapter",
            Self::MotionModule => "a motion module",
            Self::Vae => "a VAE",
            Self::Unet => "a UNet without its other parts",
            Self::TextEncoder => "a text encoder",
            Self::Transformer => "a diffusion transformer (Stable Diffusion 3, Flux or the like)",
            Self::Unknown => "a safetensors file of an unknown kind",
        })
    }
}
