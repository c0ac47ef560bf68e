//! Between the CPU's memory and the device's, without the device's thread waiting.
//!
//! A plain copy waits until the device has done all that it was told before: with one in every step, the device idles while the next step is
//! put together. From and to pinned memory the copy is only one more thing that the device is told.

use tch::{Device, Kind, TchError, Tensor};

use super::layers::Result;
use crate::sys::{Event, Stream};

/// Takes a tensor of the CPU's to a device. What reads it there comes behind the copy.
pub(super) fn upload(tensor: &Tensor, device: Device) -> Result<Tensor> {
    match device {
        // The block of pinned memory is used again only behind the copy: libtorch's allocator of it sees to that.
        Device::Cuda(_) => tensor.f_pin_memory(device)?.f_to_device_(device, tensor.kind(), true, false),
        device => tensor.f_to_device(device),
    }
}

/// A tensor on its way to the CPU.
#[derive(Debug)]
pub(super) struct Download {
    tensor: Tensor,
    /// None where it is there.
    on_its_way: Option<OnItsWay>,
}

#[derive(Debug)]
struct OnItsWay {
    arrived: Event,
    /// Read by the copy; kept until then.
    _source: Tensor,
}

impl Download {
    /// Begins to copy a tensor, behind what makes it.
    pub(super) fn start(tensor: &Tensor) -> Result<Self> {
        let (Device::Cuda(device), Ok(())) = (tensor.device(), crate::sys::prepare_shim()) else {
            return Ok(Self { tensor: tensor.f_to_device(Device::Cpu)?, on_its_way: None });
        };
        let source = tensor.f_contiguous()?;
        // A copy that does not wait goes to pinned memory.
        let tensor = source.f_to_device_(Device::Cpu, source.kind(), true, false)?;
        let arrived = Stream::current(device)?.record()?;
        Ok(Self { tensor, on_its_way: Some(OnItsWay { arrived, _source: source }) })
    }

    /// Whether [`Self::wait`] will not wait.
    pub(super) fn is_here(&self) -> Result<bool> {
        self.on_its_way.as_ref().map_or(Ok(true), |way| way.arrived.is_done())
    }

    /// The tensor on the CPU. May be called on any thread.
    ///
    /// # Errors
    /// The device's, also of the work that made the tensor.
    pub(super) fn wait(self) -> Result<Tensor> {
        if let Some(way) = &self.on_its_way {
            way.arrived.wait()?;
        }
        Ok(self.tensor)
    }

    /// [`Self::wait`] for bytes.
    pub(super) fn bytes(self) -> Result<Vec<u8>> {
        let tensor = self.wait()?;
        if tensor.kind() != Kind::Uint8 {
            return Err(TchError::Kind(format!("{:?} are no bytes", tensor.kind())));
        }
        let mut bytes = vec![0_u8; tensor.numel()];
        let count = bytes.len();
        tensor.f_copy_data(&mut bytes, count)?;
        Ok(bytes)
    }
}
