//! The networks: text encoders, UNets and autoencoders, each built wholly from its JSON config.

pub(super) mod attention;
pub(super) mod bert;
pub(super) mod clip;
pub(super) mod config;
#[cfg(test)]
mod full_size;
#[cfg(test)]
mod latent_tests;
mod per_block;
pub(super) mod resnet;
#[cfg(test)]
mod tests;
pub(super) mod tiling;
pub(super) mod time_embedding;
pub(super) mod unet;
pub(super) mod unet2d;
pub(super) mod unet2d_config;
pub(super) mod unet_blocks;
pub(super) mod unet_input;
pub(super) mod unet_prompt;
pub(super) mod vae;
pub(super) mod vq;
