//! The networks: CLIP's text encoder, the UNet and the VAE, each built wholly from its JSON config.

pub(super) mod attention;
pub(super) mod clip;
pub(super) mod config;
#[cfg(test)]
mod full_size;
pub(super) mod resnet;
#[cfg(test)]
mod tests;
pub(super) mod tiling;
pub(super) mod time_embedding;
pub(super) mod unet;
pub(super) mod unet_blocks;
pub(super) mod unet_input;
pub(super) mod vae;
