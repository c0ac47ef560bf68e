//! The header of a safetensors file, bounded and checked before a byte of a tensor is read.
//!
//! The `safetensors` crate checks as much, but reads headers of 100 MB, and its errors do not say which tensor is at fault.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    ops::Range,
};

use safetensors::Dtype;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::StrDeserializer},
};

/// The largest header that is read, in bytes. That of a whole SDXL file takes some 300,000; this leaves room for long metadata.
pub(super) const MAX_HEADER: u64 = 16 << 20;
/// No tensor of a network has more dimensions.
const MAX_DIMENSIONS: usize = 8;
/// Longer names are no names, and would fill the log.
const MAX_NAME: usize = 512;
const METADATA: &str = "__metadata__";
/// The length of the header stands in the first bytes.
const LENGTH_BYTES: usize = 8;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Header {
    /// Every tensor by its key.
    pub(super) tensors: BTreeMap<String, TensorInfo>,
    /// Free texts.
    pub(super) metadata: BTreeMap<String, String>,
}

/// One tensor.
#[derive(Debug, Clone)]
pub(super) struct TensorInfo {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Where its values lie in the file.
    pub(super) bytes: Range<usize>,
}

/// A tensor as the header writes it.
#[derive(Deserialize)]
struct Written {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Header {
    /// Reads the header at the beginning of a file's bytes.
    ///
    /// # Errors
    /// What is wrong, and with which tensor.
    pub(super) fn parse(file: &[u8]) -> Result<Self, String> {
        let (length, rest) = file.split_first_chunk::<LENGTH_BYTES>().ok_or("not a safetensors file: it is too short")?;
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER {
            return Err(format!(
                "not a safetensors file, or one whose header of {length} bytes is too long: at most {MAX_HEADER} are read"
            ));
        }
        // Fits: it is at most MAX_HEADER.
        let json = rest.get(..length as usize).ok_or_else(|| {
            format!("not a safetensors file, or a truncated one: the header has {length} bytes and the file {}", file.len())
        })?;
        let written: Entries =
            serde_json::from_slice(json).map_err(|error| format!("not a safetensors file: its header is wrong: {error}"))?;
        written.check(LENGTH_BYTES + json.len(), file.len())
    }
}

/// The header as JSON, in which a key may not stand twice.
#[derive(Default)]
struct Entries {
    tensors: BTreeMap<String, Written>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a tensor at each key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::default();
        while let Some(key) = map.next_key::<String>()? {
            if key == METADATA {
                entries.metadata = map.next_value::<Option<BTreeMap<String, String>>>()?.unwrap_or_default();
                continue;
            }
            if key.len() > MAX_NAME {
                return Err(A::Error::custom(format!("a tensor's name has {} bytes, at most {MAX_NAME} are read", key.len())));
            }
            if key.chars().any(char::is_control) {
                return Err(A::Error::custom(format!("the tensor {key:?} has control characters in its name")));
            }
            let written = map.next_value().map_err(|error| A::Error::custom(format!("the tensor {key}: {error}")))?;
            match entries.tensors.entry(key) {
                Entry::Vacant(place) => place.insert(written),
                Entry::Occupied(place) => return Err(A::Error::custom(format!("the tensor {} is there twice", place.key()))),
            };
        }
        Ok(entries)
    }
}

impl Entries {
    /// Every tensor must fit its own shape, and all together must fill the file from `start` to `end` without a hole or an overlap.
    fn check(self, start: usize, end: usize) -> Result<Header, String> {
        let mut tensors = BTreeMap::new();
        for (name, written) in self.tensors {
            let info = written.check(start).map_err(|problem| format!("the tensor {name} {problem}"))?;
            if info.bytes.end > end {
                return Err(format!("truncated: the tensor {name} ends at byte {}, and the file has {end}", info.bytes.end));
            }
            tensors.insert(name, info);
        }
        let mut in_order: Vec<(&String, &TensorInfo)> = tensors.iter().collect();
        in_order.sort_by_key(|(_, info)| (info.bytes.start, info.bytes.end));
        let mut filled = start;
        for (name, info) in in_order {
            if info.bytes.start != filled {
                let what = if info.bytes.start < filled { "overlaps another one" } else { "has a hole before it" };
                return Err(format!("the tensor {name} {what}: it begins at byte {} and not at {filled}", info.bytes.start));
            }
            filled = info.bytes.end;
        }
        match filled == end {
            true => Ok(Header { tensors, metadata: self.metadata }),
            false => Err(format!("the last tensor ends at byte {filled}, and the file has {end}")),
        }
    }
}

impl Written {
    fn check(self, start: usize) -> Result<TensorInfo, String> {
        let Self { dtype, shape, data_offsets: (from, to) } = self;
        let dtype = Dtype::deserialize(StrDeserializer::<serde::de::value::Error>::new(&dtype))
            .map_err(|_| format!("has a dtype that is not known, {dtype:.40?}"))?;
        if shape.len() > MAX_DIMENSIONS {
            return Err(format!("has {} dimensions, at most {MAX_DIMENSIONS} are read", shape.len()));
        }
        let bits = shape.iter().try_fold(dtype.bitsize() as u64, |bits, &side| bits.checked_mul(side));
        let length = to.checked_sub(from).ok_or_else(|| format!("ends before it begins: data_offsets [{from}, {to}]"))?;
        if bits.is_none_or(|bits| bits % 8 != 0 || bits / 8 != length) {
            return Err(format!("has {length} bytes, which is not what {dtype:?} {shape:?} takes"));
        }
        let in_file = |offset: u64| usize::try_from(offset).ok().and_then(|offset| offset.checked_add(start));
        let sides: Option<Vec<usize>> =
            shape.iter().map(|&side| usize::try_from(side).ok().filter(|&side| side <= isize::MAX as usize)).collect();
        match (in_file(from), in_file(to), sides) {
            (Some(from), Some(to), Some(shape)) => Ok(TensorInfo { dtype, shape, bytes: from..to }),
            _ => Err(format!("lies beyond every file: data_offsets [{from}, {to}], shape {shape:?}")),
        }
    }
}
