//! A table of names that is read in both directions.

use std::collections::BTreeSet;

/// Names inside a module: the original one and diffusers'.
pub(super) type Inner = &'static [(&'static str, &'static str)];

/// A module, or a whole key, under both of its names.
#[derive(Debug)]
struct Pair {
    original: String,
    diffusers: String,
    inner: Inner,
}

/// The names of one network.
#[derive(Debug, Default)]
pub(in crate::diffusion::files) struct Names(Vec<Pair>);

impl Names {
    /// Adds a prefix (or a whole key), the names behind which are the same in both layouts.
    pub(super) fn add(&mut self, original: impl Into<String>, diffusers: impl Into<String>) {
        self.add_module(original, diffusers, &[]);
    }

    /// Adds a prefix, the names behind which differ, too.
    pub(super) fn add_module(&mut self, original: impl Into<String>, diffusers: impl Into<String>, inner: Inner) {
        self.0.push(Pair { original: original.into(), diffusers: diffusers.into(), inner });
    }

    /// diffusers' name of an original key.
    pub(in crate::diffusion::files) fn to_diffusers(&self, key: &str) -> String {
        let found = self.0.iter().find_map(|pair| Some((pair, key.strip_prefix(&pair.original)?)));
        found.map_or_else(
            || key.to_owned(),
            |(pair, rest)| {
                let inner =
                    pair.inner.iter().find_map(|(original, diffusers)| Some([*diffusers, rest.strip_prefix(original)?].concat()));
                pair.diffusers.clone() + &inner.unwrap_or_else(|| rest.to_owned())
            },
        )
    }

    /// The original name of a key of diffusers.
    pub(in crate::diffusion::files) fn to_original(&self, key: &str) -> String {
        let found = self.0.iter().find_map(|pair| Some((pair, key.strip_prefix(&pair.diffusers)?)));
        found.map_or_else(
            || key.to_owned(),
            |(pair, rest)| {
                let inner =
                    pair.inner.iter().find_map(|(original, diffusers)| Some([*original, rest.strip_prefix(diffusers)?].concat()));
                pair.original.clone() + &inner.unwrap_or_else(|| rest.to_owned())
            },
        )
    }
}

/// The number behind a prefix: 3 of `down_blocks.3.resnets.0.conv1.weight` behind `down_blocks.`.
fn index_behind(key: &str, prefix: &str) -> Option<usize> {
    key.strip_prefix(prefix)?.split('.').next()?.parse().ok()
}

/// How many of `prefix0…`, `prefix1…`, … there are before the first gap, up to what a file that means no harm could have.
pub(in crate::diffusion::files) fn count<'a>(keys: impl Iterator<Item = &'a str>, prefix: &str) -> usize {
    const MOST: usize = 256;
    let found: BTreeSet<usize> = keys.filter_map(|key| index_behind(key, prefix)).collect();
    found.into_iter().enumerate().take_while(|(place, index)| place == index).take(MOST).count()
}
