//! The driver: it takes machine code to a GPU and starts its functions.

use std::{
    collections::HashMap,
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr,
    sync::OnceLock,
};

use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};

use super::{functions, open, shim::Handle};

type Status = c_int;
/// A function on a GPU.
type Function = *mut c_void;

const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;

functions! {
    /// What is called of `cuda.h`. A CUresult and a CUdevice are ints.
    Driver {
        device = "cuDeviceGet": unsafe extern "C" fn(*mut c_int, c_int) -> Status,
        attribute = "cuDeviceGetAttribute": unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Status,
        module = "cuModuleLoadData": unsafe extern "C" fn(*mut Handle, *const c_void) -> Status,
        function = "cuModuleGetFunction": unsafe extern "C" fn(*mut Function, Handle, *const c_char) -> Status,
        launch = "cuLaunchKernel":
            unsafe extern "C" fn(
                Function, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void,
            ) -> Status,
        error_text = "cuGetErrorString": unsafe extern "C" fn(Status, *mut *const c_char) -> Status,
    }
}

fn driver() -> Result<&'static Driver, String> {
    static LOADED: OnceLock<Result<Driver, String>> = OnceLock::new();
    LOADED.get_or_init(|| Driver::load(open("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)?)).as_ref().map_err(Clone::clone)
}

impl Driver {
    fn checked(&self, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        let mut text = ptr::null();
        // SAFETY: it writes one pointer through a pointer that lives as long as the call.
        let known = unsafe { (self.error_text)(status, &raw mut text) };
        if known != 0 || text.is_null() {
            return Err(format!("the driver answers {status}"));
        }
        // SAFETY: it is a C string of the driver's, which lives for ever.
        let text = unsafe { CStr::from_ptr(text) };
        Err(format!("the driver answers {status}: {}", text.to_string_lossy()))
    }
}

/// The compute capability of a GPU, `(9, 0)` for example. CUDA must have been used before, so that the driver is ready.
pub(super) fn compute_capability(device: usize) -> Result<(i32, i32), String> {
    let driver = driver()?;
    let mut handle = 0;
    // SAFETY: it writes one int through a pointer that lives as long as the call.
    driver.checked(unsafe { (driver.device)(&raw mut handle, device as c_int) })?;
    let attribute = |which| {
        let mut value = 0;
        // SAFETY: as above, for a device that the driver has just named.
        driver.checked(unsafe { (driver.attribute)(&raw mut value, which, handle) })?;
        Ok::<i32, String>(value)
    };
    Ok((attribute(COMPUTE_CAPABILITY_MAJOR)?, attribute(COMPUTE_CAPABILITY_MINOR)?))
}

/// Functions that are on a GPU, by their names. They stay until the program ends.
pub(super) struct Module {
    driver: &'static Driver,
    functions: HashMap<String, Function>,
}

// SAFETY: a function belongs to the GPU's context, not to a thread, and is never changed.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Takes machine code to the GPU whose context is the thread's current one.
    pub(super) fn load(code: &[u8], names: &[String]) -> Result<Self, String> {
        let driver = driver()?;
        let mut module = ptr::null_mut();
        // SAFETY: it writes one pointer, and reads a whole ELF image, whose header says how long it is.
        driver.checked(unsafe { (driver.module)(&raw mut module, code.as_ptr().cast()) })?;
        let function = |name: &String| {
            let (mut function, text) = (ptr::null_mut(), CString::new(name.as_str()).map_err(|error| error.to_string())?);
            // SAFETY: it writes one pointer, and reads a C string that lives as long as the call; the module is live.
            driver.checked(unsafe { (driver.function)(&raw mut function, module, text.as_ptr()) })?;
            Ok::<_, String>((name.clone(), function))
        };
        Ok(Self { driver, functions: names.iter().map(function).collect::<Result<_, _>>()? })
    }

    /// Starts a function on a stream.
    ///
    /// # Safety
    /// The arguments are as many and of such types as the function takes, and their addresses are those of memory on the GPU that the launch
    /// may read and write.
    pub(super) unsafe fn launch(&self, launch: &Launch, stream: Handle) -> Result<(), String> {
        let function = self.functions.get(&launch.kernel).ok_or_else(|| format!("there is no kernel {}", launch.kernel))?;
        let ([grid_x, grid_y], [block_x, block_y]) = (launch.grid, launch.block);
        let mut pointers = launch.pointers();
        // SAFETY: the function is live, and each pointer that of an argument which lives as long as the call; the rest is the caller's word.
        let status = unsafe {
            (self.driver.launch)(
                *function,
                grid_x,
                grid_y,
                1,
                block_x,
                block_y,
                1,
                launch.shared_bytes,
                stream,
                pointers.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        // So libtorch begins its own. What a launch answers may be an error of the work before it, after which the device does nothing more.
        self.driver.checked(status).map_err(|problem| format!("CUDA error: {} cannot be launched: {problem}", launch.kernel))
    }
}

/// A start of a kernel: `grid` blocks of `block` threads, `[x, y]` each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Launch {
    pub(super) kernel: String,
    pub(super) grid: [u32; 2],
    pub(super) block: [u32; 2],
    pub(super) shared_bytes: u32,
    pub(super) arguments: Vec<Argument>,
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Argument {
    /// On the device; null where there is nothing.
    Address(*mut c_void),
    Int(i32),
    Long(i64),
    Float(f32),
    /// A struct of four ints.
    Ints([i32; 4]),
}

impl Launch {
    /// Where each argument is, as the driver asks for them. It only reads.
    pub(super) fn pointers(&self) -> Vec<*mut c_void> {
        let pointer = |argument: &Argument| match argument {
            Argument::Address(value) => ptr::from_ref(value).cast::<c_void>().cast_mut(),
            Argument::Int(value) => ptr::from_ref(value).cast::<c_void>().cast_mut(),
            Argument::Long(value) => ptr::from_ref(value).cast::<c_void>().cast_mut(),
            Argument::Float(value) => ptr::from_ref(value).cast::<c_void>().cast_mut(),
            Argument::Ints(value) => ptr::from_ref(value).cast::<c_void>().cast_mut(),
        };
        self.arguments.iter().map(pointer).collect()
    }
}
