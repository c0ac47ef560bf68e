//! Fields that stand for themselves.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    super::{
        PictureFormat, QUALITIES,
        fields::{Fields, describe, integer, text},
    },
    Encoding, MAX_SEED,
};

/// A day.
const MAX_DEADLINE_SECONDS: u64 = 86_400;
const MAX_METADATA_ENTRIES: usize = 16;
const MAX_METADATA_CHARS: usize = 1_000;
/// The authors' largest is 10, whose pictures are already others.
const MAX_CACHE_INTERVAL: u64 = 10;
pub(super) const MAX_PRIORITY: u64 = 9;
pub(super) const DEFAULT_PRIORITY: u8 = 5;

/// The priority of requests that were stored before there were priorities.
pub(super) fn default_priority() -> u8 {
    DEFAULT_PRIORITY
}

/// The cache interval at which nothing is kept.
pub(super) fn every_call() -> u32 {
    1
}

pub(super) fn parse_cache_interval(value: Value) -> Result<u32, String> {
    integer(1, MAX_CACHE_INTERVAL)(value).map(|interval| interval as u32)
}

/// The last picture's seed must be a legal seed too.
pub(super) fn parse_seed(num_images: u32) -> impl Fn(Value) -> Result<u64, String> {
    integer(0, MAX_SEED - u64::from(num_images - 1))
}

/// Null is none.
pub(super) fn parse_deadline(value: Value) -> Result<Option<u32>, String> {
    if value.is_null() {
        return Ok(None);
    }
    integer(1, MAX_DEADLINE_SECONDS)(value).map(|seconds| u32::try_from(seconds).ok())
}

pub(super) fn take_output(fields: &mut Fields, warnings: &mut Vec<String>) -> Encoding {
    let format = fields.take("output_format", parse_format).unwrap_or_default();
    let (worst, best) = (u64::from(*QUALITIES.start()), u64::from(*QUALITIES.end()));
    let quality = fields.take("output_quality", integer(worst, best)).and_then(|quality| u8::try_from(quality).ok());
    if quality.is_some() && format == PictureFormat::Png && !fields.failed("output_format") {
        warnings.push("output_quality has no effect on PNG, which loses nothing".to_owned());
    }
    let default = Encoding::of(format);
    Encoding { quality: quality.unwrap_or(default.quality), ..default }
}

fn parse_format(value: Value) -> Result<PictureFormat, String> {
    value.as_str().and_then(PictureFormat::from_name).ok_or_else(|| {
        let names = PictureFormat::ALL.map(PictureFormat::name);
        format!("must be one of {}; got {}", names.join(", "), describe(&value))
    })
}

pub(super) fn parse_metadata(value: Value) -> Result<BTreeMap<String, String>, String> {
    let allowed = format!("must be an object of at most {MAX_METADATA_ENTRIES} strings of at most {MAX_METADATA_CHARS} characters");
    let Value::Object(entries) = value else { return Err(format!("{allowed}, got {}", describe(&value))) };
    if entries.len() > MAX_METADATA_ENTRIES {
        return Err(format!("{allowed}, got {} entries", entries.len()));
    }
    metadata_strings(entries).map_err(|problem| format!("{allowed}; {problem}"))
}

fn metadata_strings(entries: Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    entries
        .into_iter()
        .map(|(key, value)| {
            let value = text(MAX_METADATA_CHARS)(value)?;
            text(MAX_METADATA_CHARS)(Value::String(key)).map(|key| (key, value))
        })
        .collect()
}
