//! What a UNet sees besides the latents, told by its number of input channels.

/// What the UNet's input channels hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::diffusion) enum UNetInput {
    /// The latents alone.
    Latents,
    /// The latents, a mask's cells, and the latents of the picture without what is masked; diffusers' `StableDiffusionInpaintPipeline`.
    MaskedPicture,
    /// The latents and those of a picture; diffusers' `StableDiffusionInstructPix2PixPipeline`.
    Picture,
}

impl UNetInput {
    /// Tells by the channels that the UNet takes, those that it gives and those of the latents, or says what is wrong with them.
    pub(in crate::diffusion) fn of(in_channels: i64, out_channels: i64, latents: i64) -> Result<Self, String> {
        let problem = || {
            format!(
                "the UNet takes {in_channels} channels and gives {out_channels}, the VAE has {latents}; supported are UNets that give as \
                 many as the VAE has and take as many, twice as many (instruct-pix2pix) or twice as many and one (inpainting)"
            )
        };
        match in_channels {
            _ if out_channels != latents => Err(problem()),
            channels if channels == latents => Ok(Self::Latents),
            channels if channels == 2 * latents => Ok(Self::Picture),
            channels if channels == 2 * latents + 1 => Ok(Self::MaskedPicture),
            _ => Err(problem()),
        }
    }
}
