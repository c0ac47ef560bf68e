//! When a picture is done in tiles, and what happens when half precision does not suffice.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::*;
use safetensors::SafeTensors;

fn config(sample_size: i64) -> VaeConfig {
    VaeConfig { block_out_channels: vec![8; 4], sample_size: Some(sample_size.into()), ..VaeConfig::default() }
}

/// The tiles for a picture of 1024 × 512 pixels that takes ten bytes a pixel.
fn tiles(tiling: VaeTiling, bytes: u64, sample_size: i64) -> Option<TileSize> {
    VaePolicy { tiling, bytes, float32_retries: Arc::default() }.tiles(&config(sample_size), (1024, 512), 10)
}

fn of_side(pixels: i64) -> Option<TileSize> {
    Some(TileSize::of_pixels(pixels, 8))
}

#[test]
fn a_picture_is_done_whole_as_long_as_it_fits() {
    let needed = 1024 * 512 * 10;
    assert_eq!(tiles(VaeTiling::Auto, needed, 512), None);
    assert_eq!(tiles(VaeTiling::Auto, needed - 1, 512), of_side(512));
    assert_eq!(tiles(VaeTiling::Never, 0, 512), None);
    assert_eq!(tiles(VaeTiling::Always, needed, 512), of_side(512));
}

#[test]
fn tiles_have_the_models_own_size_or_the_largest_half_of_it_that_fits() {
    assert_eq!(tiles(VaeTiling::Auto, 1024 * 512 * 10 - 1, 1024), of_side(512), "1024 × 1024 does not fit either");
    assert_eq!(tiles(VaeTiling::Auto, 512 * 512 * 10 - 1, 1024), of_side(256));
    assert_eq!(tiles(VaeTiling::Auto, 0, 1024), of_side(SMALLEST_TILE));
    assert_eq!(tiles(VaeTiling::Always, 0, 32), of_side(SMALLEST_TILE));
}

/// 60,000 in float16, whose largest number is 65,504.
const SIXTY_THOUSAND: [u8; 2] = 0x7b53_u16.to_le_bytes();

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo")
}

/// A model that has the demo model's VAE only, in which two terms of 60,000 meet between the norms.
fn overflowing_vae(model: &Path) {
    let (demo, folder) = (demo().join("vae"), model.join("vae"));
    fs::create_dir(&folder).unwrap();
    fs::write(model.join("model_index.json"), "{}").unwrap();
    let config = fs::read_to_string(demo.join("config.json")).unwrap();
    // With it the VAE is float32 from the start.
    fs::write(folder.join("config.json"), config.replace("\"force_upcast\": true", "\"force_upcast\": false")).unwrap();
    let name = "diffusion_pytorch_model.safetensors";
    let mut bytes = fs::read(demo.join(name)).unwrap();
    let biases = ["decoder.conv_in.bias", "decoder.mid_block.resnets.0.conv2.bias"].map(|name| place(&bytes, name));
    biases.into_iter().flatten().step_by(2).for_each(|at| bytes[at..at + 2].copy_from_slice(&SIXTY_THOUSAND));
    fs::write(folder.join(name), bytes).unwrap();
}

/// Where a tensor lies in a file.
fn place(file: &[u8], name: &str) -> std::ops::Range<usize> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let data = tensors.tensor(name).unwrap().data();
    let start = data.as_ptr() as usize - file.as_ptr() as usize;
    start..start + data.len()
}

#[test]
fn a_decode_that_overflows_float16_is_what_float32_makes_of_it() {
    let folder = tempfile::tempdir().unwrap();
    overflowing_vae(folder.path());
    let files = Arc::new(ModelFiles::open(folder.path()).unwrap());
    let load = |kind| {
        let placement = Placement { device: Device::Cpu, kind, batch_invariant: false };
        let policy = VaePolicy { tiling: VaeTiling::Auto, bytes: u64::MAX, float32_retries: Arc::default() };
        Autoencoder::load(Arc::clone(&files), "vae", placement, policy).unwrap()
    };
    let latents = Tensor::f_from_slice(&crate::diffusion::NoiseGenerator::new(Default::default(), 1).randn(4 * 8 * 8)).unwrap();
    let latents = latents.reshape([1, 4, 8, 8]);
    let retries = |vae: &Autoencoder| vae.policy.float32_retries.load(Ordering::Relaxed);
    let (half, float) = (load(Kind::Half), load(Kind::Float));
    assert!(!is_finite(&half.vae.decode(&latents, None).unwrap()).unwrap(), "nothing overflows");
    let expected = float.decode(&latents).unwrap();
    assert!(half.decode(&latents).unwrap() == expected);
    assert_eq!((retries(&half), retries(&float)), (1, 0));
}

#[test]
fn a_vae_whose_config_asks_to_be_upcast_is_not_in_float16() {
    let demo = ModelFiles::open(&demo()).unwrap();
    for (kind, expected) in [(Kind::Half, Kind::Float), (Kind::BFloat16, Kind::BFloat16)] {
        let vae = AutoencoderKL::load(&demo, "vae", Placement { device: Device::Cpu, kind, batch_invariant: false }).unwrap();
        assert_eq!(vae.placement().kind, expected);
    }
}

#[test]
fn a_decode_with_kernels_of_its_own_is_what_it_is_without() {
    let demo = ModelFiles::open(&demo()).unwrap();
    let load =
        || AutoencoderKL::load(&demo, "vae", Placement { device: Device::Cpu, kind: Kind::Float, batch_invariant: false }).unwrap();
    let latents = Tensor::randn([1, 4, 4, 6], (Kind::Float, Device::Cpu));
    let expected = load().decode(&latents, None).unwrap();
    let (got, launches) = crate::sys::with_kernels_on_the_cpu(|| load().decode(&latents, None).unwrap());
    let error = (&got - &expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
    assert!(error < 1e-5 && launches.len() > 10, "differs by {error} after {launches:?}");
}
