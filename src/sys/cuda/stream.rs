//! Streams: orders of work that a GPU does side by side, and events by which one waits for another.

use std::{ptr, time::Duration};

use tch::{TchError, Tensor};

use super::shim::{Handle, address_of, answered, shim};

/// A stream of libtorch's. Work of one stream is done in order; what is to be known to another needs an [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Stream {
    id: i64,
    device: i64,
}

impl Stream {
    /// One of the device's streams beside its default one.
    ///
    /// # Errors
    /// When there is no such device, or no `libeasel_cuda.so`.
    pub fn new(device: usize) -> Result<Self, TchError> {
        let mut stream = Self { id: 0, device: 0 };
        // SAFETY: it writes one Stream, whose layout both sides share, through a pointer that lives as long as the call.
        answered(unsafe { (shim()?.stream_new)(device as i64, &raw mut stream) })?;
        Ok(stream)
    }

    /// The stream that this thread's work for the device goes to. The device becomes the thread's current one, whose recordings are made and
    /// whose kernels are launched; libtorch's own work goes to the device of its tensors all the same.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn current(device: usize) -> Result<Self, TchError> {
        let mut stream = Self { id: 0, device: 0 };
        // SAFETY: as in `new`.
        answered(unsafe { (shim()?.stream_current)(device as i64, &raw mut stream) })?;
        Ok(stream)
    }

    /// Does what `work` tells this thread's GPU on this stream, behind all that the current stream has been told so far. The current one does
    /// not wait for it.
    ///
    /// # Errors
    /// `work`'s, and the device's.
    pub fn scope<T, E: From<TchError>>(self, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let before = Self::current(self.device())?;
        self.wait_for(before)?;
        let _back = Back(before);
        self.make_current()?;
        work()
    }

    /// Lets this stream wait for all that `other` has been told so far.
    ///
    /// # Errors
    /// The device's.
    pub fn wait_for(self, other: Self) -> Result<(), TchError> {
        let event = other.record()?;
        // SAFETY: the event lives as long as the call; a stream is a pair of numbers that C++ checks.
        answered(unsafe { (shim()?.event_block)(event.0, self) })
    }

    /// An event at this place of the stream.
    ///
    /// # Errors
    /// The device's.
    pub fn record(self) -> Result<Event, TchError> {
        self.record_event(false)
    }

    /// The same that keeps the time at which the device comes to it, for [`Event::since`].
    ///
    /// # Errors
    /// The device's.
    pub fn record_time(self) -> Result<Event, TchError> {
        self.record_event(true)
    }

    fn record_event(self, keeps_time: bool) -> Result<Event, TchError> {
        let mut event = ptr::null_mut();
        // SAFETY: it writes one pointer through a pointer that lives as long as the call.
        answered(unsafe { (shim()?.event_new)(self, i32::from(keeps_time), &raw mut event) })?;
        Ok(Event(event))
    }

    /// Keeps a tensor's memory until this stream is done with it, though the tensor may be dropped before: what belongs to another
    /// stream is otherwise given to the next that asks there.
    ///
    /// # Errors
    /// When the tensor is not the device's.
    pub fn uses(self, tensor: &Tensor) -> Result<(), TchError> {
        // SAFETY: the pointer is that of a live tensor, which is only read.
        answered(unsafe { (shim()?.stream_uses)(self, address_of(tensor)) })
    }

    /// The number of the device that it belongs to.
    pub fn device(self) -> usize {
        usize::try_from(self.device).unwrap_or_default()
    }

    /// The driver's name of it.
    pub(super) fn handle(self) -> Result<Handle, TchError> {
        let mut handle = ptr::null_mut();
        // SAFETY: it writes one pointer through a pointer that lives as long as the call.
        answered(unsafe { (shim()?.stream_handle)(self, &raw mut handle) })?;
        Ok(handle)
    }

    fn make_current(self) -> Result<(), TchError> {
        // SAFETY: it takes two numbers, which C++ checks, and changes this thread's state only.
        answered(unsafe { (shim()?.stream_make_current)(self) })
    }
}

/// Makes a stream the current one again, whatever has happened.
struct Back(Stream);

impl Drop for Back {
    fn drop(&mut self) {
        // It was the current one before, so that nothing is left that could fail.
        let _ = self.0.make_current();
    }
}

/// A place in a stream's work.
#[derive(Debug)]
pub struct Event(Handle);

// SAFETY: CUDA's events belong to the process, and the C++ object beside one is used by one thread at a time, as this is not Sync.
unsafe impl Send for Event {}

impl Event {
    /// Whether the device has come to it.
    ///
    /// # Errors
    /// The device's: also those of the work before it.
    pub fn is_done(&self) -> Result<bool, TchError> {
        let mut is_done = 0;
        // SAFETY: the event is live, and one int is written through a pointer that lives as long as the call.
        answered(unsafe { (shim()?.event_query)(self.0, &raw mut is_done) })?;
        Ok(is_done != 0)
    }

    /// Waits until the device has come to it. May be called on any thread.
    ///
    /// # Errors
    /// The device's: also those of the work before it.
    pub fn wait(&self) -> Result<(), TchError> {
        // SAFETY: the event is live.
        answered(unsafe { (shim()?.event_wait)(self.0) })
    }

    /// The device's time from an earlier event to this one. Both keep time, and the device has come to both.
    ///
    /// # Errors
    /// When one of them keeps no time or was not come to; the device's.
    pub fn since(&self, earlier: &Self) -> Result<Duration, TchError> {
        let mut milliseconds = 0.0;
        // SAFETY: both events are live, and one double is written through a pointer that lives as long as the call.
        answered(unsafe { (shim()?.event_elapsed)(earlier.0, self.0, &raw mut milliseconds) })?;
        Ok(Duration::try_from_secs_f64(milliseconds / 1000.0).unwrap_or_default())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(shim) = shim() {
            // SAFETY: `record` made it, and nothing uses it any more.
            unsafe { (shim.event_free)(self.0) };
        }
    }
}
