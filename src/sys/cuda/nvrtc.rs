//! NVIDIA's run-time compiler. It needs no GPU.

use std::{
    ffi::{CString, c_char, c_int, c_void},
    iter, ptr,
    sync::OnceLock,
};

use libloading::os::unix::{RTLD_LOCAL, RTLD_NOW};

use super::{functions, open};

type Program = *mut c_void;
type Status = c_int;

functions! {
    /// What is called of `nvrtc.h`.
    Nvrtc {
        create = "nvrtcCreateProgram":
            unsafe extern "C" fn(*mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char) -> Status,
        compile = "nvrtcCompileProgram": unsafe extern "C" fn(Program, c_int, *const *const c_char) -> Status,
        log_size = "nvrtcGetProgramLogSize": unsafe extern "C" fn(Program, *mut usize) -> Status,
        log = "nvrtcGetProgramLog": unsafe extern "C" fn(Program, *mut u8) -> Status,
        code_size = "nvrtcGetCUBINSize": unsafe extern "C" fn(Program, *mut usize) -> Status,
        code = "nvrtcGetCUBIN": unsafe extern "C" fn(Program, *mut u8) -> Status,
        destroy = "nvrtcDestroyProgram": unsafe extern "C" fn(*mut Program) -> Status,
    }
}

/// The compiler that libtorch uses, too.
fn nvrtc() -> Result<&'static Nvrtc, String> {
    static LOADED: OnceLock<Result<Nvrtc, String>> = OnceLock::new();
    LOADED.get_or_init(|| Nvrtc::load(open("libnvrtc.so.13", RTLD_NOW | RTLD_LOCAL)?)).as_ref().map_err(Clone::clone)
}

/// Compiles CUDA C++ to machine code for GPUs of this compute capability, `(9, 0)` for example.
///
/// # Errors
/// When `libnvrtc.so.13` is not there, or what the compiler finds wrong.
pub(super) fn compile(source: &str, (major, minor): (i32, i32)) -> Result<Vec<u8>, String> {
    let nvrtc = nvrtc()?;
    let program = Compilation::of(nvrtc, source)?;
    let options = [format!("--gpu-architecture=sm_{major}{minor}"), "--std=c++17".to_owned()];
    let options = options.map(|option| CString::new(option).unwrap_or_default());
    let pointers = options.each_ref().map(|option| option.as_ptr());
    // SAFETY: the program is live; the options are C strings that live as long as the call, as many as are said.
    if unsafe { (nvrtc.compile)(program.program, pointers.len() as c_int, pointers.as_ptr()) } != 0 {
        let log = program.bytes(nvrtc.log_size, nvrtc.log)?;
        return Err(String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned());
    }
    program.bytes(nvrtc.code_size, nvrtc.code)
}

/// A program of the compiler's, destroyed with this.
struct Compilation<'a> {
    nvrtc: &'a Nvrtc,
    program: Program,
}

impl<'a> Compilation<'a> {
    fn of(nvrtc: &'a Nvrtc, source: &str) -> Result<Self, String> {
        let source = CString::new(source).map_err(|error| error.to_string())?;
        let mut program = ptr::null_mut();
        // SAFETY: it writes one pointer and reads a C string; no headers are given, so that null stands for their lists.
        let status =
            unsafe { (nvrtc.create)(&raw mut program, source.as_ptr(), c"easel.cu".as_ptr(), 0, ptr::null(), ptr::null()) };
        if status == 0 { Ok(Self { nvrtc, program }) } else { Err(format!("NVRTC takes no program (status {status})")) }
    }

    /// What the compiler has: its size is asked for first.
    fn bytes(
        &self,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        get: unsafe extern "C" fn(Program, *mut u8) -> Status,
    ) -> Result<Vec<u8>, String> {
        let mut count = 0;
        // SAFETY: the program is live, and one size is written through a pointer that lives as long as the call.
        let sized = unsafe { size(self.program, &raw mut count) };
        let mut bytes: Vec<u8> = iter::repeat_n(0, count).collect();
        // SAFETY: the buffer has the size that the compiler has just named.
        let got = unsafe { get(self.program, bytes.as_mut_ptr()) };
        if (sized, got) == (0, 0) { Ok(bytes) } else { Err(format!("NVRTC answers nothing (status {sized}, {got})")) }
    }
}

impl Drop for Compilation<'_> {
    fn drop(&mut self) {
        // SAFETY: `of` made it, and nothing uses it any more.
        unsafe { (self.nvrtc.destroy)(&raw mut self.program) };
    }
}

#[cfg(test)]
mod tests {
    use super::{super::kernels::SOURCE, *};

    /// Runs where the compiler is, which `make libtorch-cuda` brings; the emulated kernels are tested everywhere.
    #[test]
    fn the_kernels_compile_for_every_gpu_that_libtorch_knows() {
        if let Err(problem) = nvrtc() {
            eprintln!("skipped: {problem}");
            return;
        }
        for capability in [(7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)] {
            let code = compile(SOURCE, capability).unwrap();
            assert!(code.starts_with(b"\x7fELF") && code.len() > 10_000, "{capability:?}: {} bytes", code.len());
        }
        let problem = compile("__global__ void f() { missing(); }", (9, 0)).unwrap_err();
        assert!(problem.contains("missing"), "{problem}");
    }
}
