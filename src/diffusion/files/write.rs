//! Writes a safetensors file tensor by tensor, so that no more than one is in memory.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};

use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::{header::MAX_HEADER, stored::StoredTensor};
use crate::diffusion::error::LoadError;

/// The header's length is a multiple of this, so that tensors are aligned.
const ALIGNMENT: usize = 8;

/// A tensor to be written, made of one or of several behind one another.
pub(super) struct Planned {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) sources: Vec<StoredTensor>,
}

impl Planned {
    /// A tensor as it is.
    pub(super) fn one(name: String, tensor: StoredTensor) -> Self {
        Self { name, shape: tensor.shape().to_vec(), sources: vec![tensor] }
    }

    /// A tensor without a value, whose name is all that it says.
    pub(super) fn empty(name: String) -> Self {
        Self { name, shape: vec![0], sources: Vec::new() }
    }

    /// Its dtype: what is asked for, where it is a weight.
    fn dtype(&self, wanted: Option<Dtype>) -> Dtype {
        let own = self.sources.first().map_or(Dtype::F32, StoredTensor::dtype);
        wanted.filter(|_| self.sources.iter().all(StoredTensor::is_weight)).unwrap_or(own)
    }

    fn bytes(&self, dtype: Dtype) -> u64 {
        self.shape.iter().product::<usize>() as u64 * dtype.bitsize() as u64 / 8
    }
}

/// What is written besides tensors, in which dtype, and who hears how far it is.
pub(super) struct Writing<'a> {
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) dtype: Option<Dtype>,
    /// Called with the bytes that have been written since the last call.
    pub(super) progress: &'a mut dyn FnMut(u64),
}

/// The bytes that the tensors will take.
pub(super) fn size(tensors: &[Planned], dtype: Option<Dtype>) -> u64 {
    tensors.iter().map(|tensor| tensor.bytes(tensor.dtype(dtype))).sum()
}

/// Writes a file that is not there yet.
pub(super) fn write_file(path: &Path, mut tensors: Vec<Planned>, writing: Writing) -> Result<(), LoadError> {
    let io = |source| LoadError::Io { path: path.to_owned(), source };
    let Writing { metadata, dtype, progress } = writing;
    // The wider dtypes first: then every tensor is aligned to its own.
    tensors.sort_by(|a, b| (b.dtype(dtype).bitsize(), &a.name).cmp(&(a.dtype(dtype).bitsize(), &b.name)));
    let header = header(&tensors, metadata, dtype);
    if header.len() as u64 > MAX_HEADER {
        let problem =
            format!("its header would have {} bytes with the folder's configs; at most {MAX_HEADER} are read", header.len());
        return Err(LoadError::Invalid { path: path.to_owned(), problem });
    }
    let mut file = BufWriter::new(File::create_new(path).map_err(io)?);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io)?;
    file.write_all(header.as_bytes()).map_err(io)?;
    for tensor in tensors {
        for source in &tensor.sources {
            let bytes = source.bytes_as(&tensor.name, tensor.dtype(dtype))?;
            file.write_all(&bytes).map_err(io)?;
            progress(bytes.len() as u64);
            source.forget();
        }
    }
    file.into_inner().map_err(|error| io(error.into_error()))?.sync_all().map_err(io)
}

fn header(tensors: &[Planned], mut metadata: BTreeMap<String, String>, dtype: Option<Dtype>) -> String {
    // transformers refuses files that do not say whose tensors they hold.
    metadata.insert("format".to_owned(), "pt".to_owned());
    let mut entries = Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
    let mut start = 0;
    for tensor in tensors {
        let dtype = tensor.dtype(dtype);
        let end = start + tensor.bytes(dtype);
        entries.insert(tensor.name.clone(), json!({"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]}));
        start = end;
    }
    let mut text = Value::Object(entries).to_string();
    let length = text.len().next_multiple_of(ALIGNMENT);
    text.extend(std::iter::repeat_n(' ', length - text.len()));
    text
}
