//! What can go wrong while a model is loaded, and what libtorch's errors mean.

use std::{fmt, io, path::PathBuf};

use tch::TchError;

use crate::dispatch::ports::EngineError;

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is there but is not what it should be.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The weights and the architecture that the config describes do not match.
    #[error("{}: the weights do not fit the config{tensors}", path.display())]
    Tensors {
        /// The component's folder.
        path: PathBuf,
        /// Which tensors.
        tensors: Mismatch,
    },
    /// The device that was asked for cannot be used.
    #[error("{0}")]
    Device(String),
    /// libtorch failed.
    #[error(transparent)]
    Torch(#[from] TchError),
}

/// Every tensor that keeps a component from being loaded.
#[derive(Debug, Default)]
pub struct Mismatch {
    /// Expected and not there.
    pub missing: Vec<String>,
    /// There and not expected.
    pub unused: Vec<String>,
    /// There in another shape, with both shapes.
    pub misshapen: Vec<String>,
    /// There more than once, perhaps under an older name as well.
    pub repeated: Vec<String>,
}

impl Mismatch {
    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        [&self.missing, &self.unused, &self.misshapen, &self.repeated].iter().all(|names| names.is_empty())
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("missing", &self.missing),
            ("unused", &self.unused),
            ("of another shape", &self.misshapen),
            ("there twice", &self.repeated),
        ];
        for (what, names) in kinds {
            if !names.is_empty() {
                write!(f, "; {} {what}: {}", names.len(), names.join(", "))?;
            }
        }
        Ok(())
    }
}

impl From<LoadError> for EngineError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Torch(error) => engine_error(&error),
            other => Self::Failed(other.to_string()),
        }
    }
}

impl From<TchError> for EngineError {
    fn from(error: TchError) -> Self {
        engine_error(&error)
    }
}

/// By what libtorch, the driver, and cuBLAS and cuDNN, each in its own words, say that there is not enough memory.
const WANT_OF_MEMORY: [&str; 4] = ["out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED"];

/// Sorts libtorch's errors by what the dispatcher can do about them.
pub(super) fn engine_error(error: &TchError) -> EngineError {
    let text = error.to_string();
    // The first line says what happened; the rest is a C++ stack.
    let message = text.lines().next().unwrap_or_default().to_owned();
    if WANT_OF_MEMORY.iter().any(|sign| text.contains(sign)) {
        EngineError::OutOfMemory(message)
    } else if text.contains("CUDA error") || text.contains("cuDNN error") {
        EngineError::DeviceLost(message)
    } else {
        EngineError::Failed(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(text: &str) -> EngineError {
        engine_error(&TchError::Torch(text.to_owned()))
    }

    #[test]
    fn a_device_that_has_failed_is_lost_whoever_says_so() {
        for text in [
            "CUDA error: an illegal memory access was encountered\nand a C++ stack",
            "CUDA error: geglu_half cannot be launched: the driver answers 700: an illegal memory access was encountered",
            "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        ] {
            assert!(matches!(sorted(text), EngineError::DeviceLost(_)), "{text}");
        }
        assert!(
            matches!(sorted("sizes do not match\nand a C++ stack"), EngineError::Failed(message) if !message.contains("stack"))
        );
    }

    #[test]
    fn want_of_memory_is_told_from_a_lost_device_whoever_wants_it() {
        for text in [
            "CUDA out of memory. Tried to allocate 20.00 MiB",
            "CUDA error: out of memory",
            "CUDA error: geglu_half cannot be launched: the driver answers 2: out of memory",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
        ] {
            assert!(matches!(sorted(text), EngineError::OutOfMemory(_)), "{text}");
        }
    }
}
