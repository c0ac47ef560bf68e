//! Which files of a part are its weights: those that the loader reads, in one form of them.

use crate::cli::CliError;

/// What may stand before `.safetensors` in the names of weights.
const STEMS: [&str; 2] = ["diffusion_pytorch_model", "model"];
/// How files end that hold weights as pickles.
const PICKLES: [&str; 4] = [".bin", ".ckpt", ".pt", ".msgpack"];

/// One form of a part's weights, whole or in shards with their index, by the names of the part's files; none for a part that needs none.
///
/// # Errors
/// When a part that cannot do without has none that can be read, or not all shards.
pub(super) fn weights<'a>(part: &str, inside: &[&'a str], full: bool) -> Result<Vec<&'a str>, CliError> {
    let stems = stems(part);
    let variants = if full { ["", ".fp16"] } else { [".fp16", ""] };
    for (variant, stem) in variants.iter().flat_map(|variant| stems.iter().map(move |stem| (variant, stem))) {
        let whole = format!("{stem}{variant}.safetensors");
        if let Some(file) = inside.iter().find(|name| **name == whole) {
            return Ok(vec![file]);
        }
        let index = format!("{stem}.safetensors.index{variant}.json");
        if let Some(index) = inside.iter().find(|name| **name == index) {
            let mut files = shards(inside, stem, variant).ok_or_else(|| {
                CliError::failed(format!("{part}: {index} is there, and not all of its shards {stem}{variant}-….safetensors are"))
            })?;
            files.push(index);
            return Ok(files);
        }
    }
    none(part, inside)
}

/// Stable Diffusion's parts have the stem that the loader looks for; of others it is not known which.
fn stems(part: &str) -> &'static [&'static str] {
    match part {
        "unet" | "vae" | "vqvae" => &STEMS[..1],
        _ if needs_weights(part) => &STEMS[1..],
        _ => &STEMS,
    }
}

fn needs_weights(part: &str) -> bool {
    matches!(part, "unet" | "vae" | "vqvae" | "bert") || part.starts_with("text_encoder")
}

/// What it means that none of the files is of a form that is read.
fn none<'a>(part: &str, inside: &[&str]) -> Result<Vec<&'a str>, CliError> {
    let others: Vec<&str> = inside.iter().copied().filter(|name| name.ends_with(".safetensors")).collect();
    let is_pickled = inside.iter().any(|name| PICKLES.iter().any(|ending| name.ends_with(ending)));
    match (others.is_empty(), is_pickled) {
        (true, true) => Err(CliError::failed(format!(
            "{part}: its weights are there as pickles only, which may run code and are not read; ask for safetensors"
        ))),
        // A scheduler or a tokenizer has none.
        (true, false) if !needs_weights(part) => Ok(Vec::new()),
        _ => {
            let (stem, found) = (stems(part)[0], if others.is_empty() { "nothing".to_owned() } else { others.join(", ") });
            Err(CliError::failed(format!(
                "{part}: no weights that are read, such as {stem}.safetensors, {stem}.fp16.safetensors or {stem}.safetensors.index.json \
                 with its shards; there is {found}"
            )))
        }
    }
}

/// All shards, if all are there.
fn shards<'a>(inside: &[&'a str], stem: &str, variant: &str) -> Option<Vec<&'a str>> {
    let found: Vec<(&str, (usize, usize))> = inside.iter().filter_map(|name| Some((*name, shard(name, stem, variant)?))).collect();
    let (_, (_, of)) = *found.first()?;
    let is_whole = (1..=of).all(|number| found.iter().any(|(_, numbers)| *numbers == (number, of)));
    is_whole.then(|| found.into_iter().map(|(name, _)| name).collect())
}

/// The numbers in `STEM-00001-of-00002.safetensors`, `STEM.fp16-00001-of-00002.safetensors` and `STEM-00001-of-00002.fp16.safetensors`.
fn shard(name: &str, stem: &str, variant: &str) -> Option<(usize, usize)> {
    let rest = name.strip_prefix(stem)?.strip_suffix(".safetensors")?;
    let numbers = rest.strip_prefix(variant).filter(|numbers| numbers.starts_with('-')).or_else(|| rest.strip_suffix(variant))?;
    let (number, of) = numbers.strip_prefix('-')?.split_once("-of-")?;
    Some((number.parse().ok()?, of.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(part: &str, inside: &[&str]) -> String {
        weights(part, inside, false).unwrap_err().to_string()
    }

    #[test]
    fn a_part_that_needs_weights_and_has_none_that_are_read_is_named() {
        for part in ["unet", "vae", "vqvae", "bert", "text_encoder", "text_encoder_2"] {
            assert!(problem(part, &["config.json"]).contains(&format!("{part}: no weights that are read")), "{part}");
        }
        assert!(
            problem("unet", &["diffusion_pytorch_model.bf16.safetensors"])
                .contains("there is diffusion_pytorch_model.bf16.safetensors")
        );
        assert!(problem("unet", &["model.safetensors"]).contains("diffusion_pytorch_model.safetensors"));
        assert!(problem("bert", &["diffusion_pytorch_model.safetensors"]).contains("such as model.safetensors"));
        assert_eq!(weights("scheduler", &["scheduler_config.json"], false).unwrap(), [""; 0]);
    }

    #[test]
    fn weights_that_are_pickles_only_are_refused_with_the_reason() {
        for file in ["diffusion_pytorch_model.bin", "diffusion_flax_model.msgpack"] {
            assert!(problem("vae", &["config.json", file]).contains("vae: its weights are there as pickles only"), "{file}");
        }
    }

    #[test]
    fn shards_come_all_or_not_at_all() {
        let index = "diffusion_pytorch_model.safetensors.index.json";
        let (first, second) =
            ("diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors");
        assert_eq!(weights("unet", &[first, second, index], false).unwrap(), [first, second, index]);
        for inside in [&[first, index][..], &[second, index], &[index]] {
            assert!(problem("unet", inside).contains("not all of its shards"), "{inside:?}");
        }
    }
}
