//! The kernels' own text, compiled for the CPU, against libtorch in float64.

use std::{
    cell::RefCell,
    ffi::{CString, c_char, c_int, c_uint, c_void},
    fs,
    process::Command,
    sync::{Mutex, OnceLock},
};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::{
    group_norm::{GroupNormCall, NormShape},
    pointwise::{can_be_added, geglu_inner, run_add, run_geglu},
    *,
};

type Emulate = unsafe extern "C" fn(*const c_char, *const c_uint, *const c_uint, c_uint, *mut *mut c_void) -> c_int;

/// Starts kernels on the CPU.
pub(super) struct Emulator;

thread_local! {
    /// What has been launched since the CPU has kernels; none while it has none.
    static LAUNCHED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Does `work` on this thread as if the CPU had kernels; answers the names of those that it launched, too.
pub(crate) fn with_kernels_on_the_cpu<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    LAUNCHED.set(Some(Vec::new()));
    let done = work();
    (done, LAUNCHED.take().unwrap_or_default())
}

pub(super) fn emulator_for(tensor: &Tensor) -> Option<Emulator> {
    (LAUNCHED.with_borrow(Option::is_some) && tensor.device() == Device::Cpu).then_some(Emulator)
}

fn emulate() -> &'static Mutex<Emulate> {
    static LOADED: OnceLock<(Library, Mutex<Emulate>)> = OnceLock::new();
    let (_, emulate) = LOADED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let [source, library] = ["fused.cpp", "fused.so"].map(|name| folder.path().join(name));
        fs::write(&source, concat!(include_str!("emulator.h"), include_str!("fused.cu"), include_str!("emulator_end.h"))).unwrap();
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-pthread", "-w", "-o"];
        let run = Command::new(compiler).args(flags).arg(&library).arg(&source).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        // SAFETY: it has no initialisers, and stays in the static.
        let library = unsafe { Library::open(Some(&library), RTLD_NOW | RTLD_LOCAL) }.unwrap();
        // SAFETY: the signature is that of emulator_end.h.
        let emulate = *unsafe { library.get::<Emulate>(b"easel_emulate\0") }.unwrap();
        (library, Mutex::new(emulate))
    });
    emulate
}

impl Launcher for Emulator {
    fn launch(&self, launch: &Launch) -> Result<(), TchError> {
        let (name, mut pointers) = (CString::new(launch.kernel.as_str()).unwrap(), launch.pointers());
        let emulate = emulate().lock().unwrap();
        // SAFETY: as of `OnGpu`, with the CPU's memory in the place of the device's.
        let found = unsafe {
            emulate(name.as_ptr(), launch.grid.as_ptr(), launch.block.as_ptr(), launch.shared_bytes, pointers.as_mut_ptr())
        };
        assert_eq!(found, 1, "no kernel {}", launch.kernel);
        LAUNCHED.with_borrow_mut(|launched| launched.iter_mut().for_each(|launched| launched.push(launch.kernel.clone())));
        Ok(())
    }
}

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Numbers about `mean`, in a dtype and, of four dimensions, in channels-last layout.
fn randn(size: &[i64], mean: f64, kind: Kind) -> Tensor {
    let values = (Tensor::randn(size, CPU) + mean).to_kind(kind);
    if size.len() == 4 { values.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]) } else { values }
}

/// ‖got − expected‖ / ‖expected‖ within what the dtype's last bits come to.
fn assert_close(got: &Tensor, expected: &Tensor, scale: f64) {
    let bound = scale
        * match got.kind() {
            Kind::Float => 5e-6,
            Kind::BFloat16 => 2.5e-3,
            _ => 3.5e-4,
        };
    let got = got.to_kind(Kind::Double);
    let error = (&got - expected).norm().double_value(&[]) / expected.norm().double_value(&[]);
    // Not the other way round: NaN is not close.
    assert!(error < bound, "{error} is not below {bound}");
}

fn reference(call: &GroupNormCall) -> Tensor {
    let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
    let x = call.shift.map_or(double(call.x), |shift| double(call.x) + double(shift).unsqueeze(-1).unsqueeze(-1));
    let normed = x.group_norm(call.groups, Some(double(call.weight)), Some(double(call.bias)), call.eps, false);
    if call.silu { normed.silu() } else { normed }
}

#[test]
fn a_group_norm_is_libtorchs_in_every_dtype_with_and_without_what_stands_around_it() {
    // Groups that packs do and do not divide, one cell, more pieces than lanes, and groups of one channel.
    let sizes = [([2, 320, 8, 8], 32), ([1, 40, 5, 7], 4), ([3, 64, 40, 40], 32), ([2, 32, 1, 1], 32), ([1, 8, 3, 300], 8)];
    for kind in KINDS {
        for (place, (size, groups)) in sizes.into_iter().enumerate() {
            let x = randn(&size, 0.3, kind);
            let [shift, weight, bias] = [&[size[0], size[1]][..], &[size[1]], &[size[1]]].map(|size| randn(size, 0.0, kind));
            let shift = (place % 2 == 0).then_some(&shift);
            let call = GroupNormCall { x: &x, shift, weight: &weight, bias: &bias, groups, eps: 1e-5, silu: place != 1 };
            let Some(shape) = call.shape() else { panic!("{size:?} in {kind:?} is refused") };
            let got = call.run(&Emulator, shape).unwrap();
            assert_eq!((got.size(), got.kind()), (size.to_vec(), kind));
            assert_close(&got, &reference(&call), 1.0);
        }
    }
}

#[test]
fn a_mean_that_is_far_from_zero_takes_nothing_from_the_variance() {
    let (x, ones, zeros) = (randn(&[1, 64, 48, 48], 3000.0, Kind::Float), Tensor::ones([64], CPU), Tensor::zeros([64], CPU));
    let call = GroupNormCall { x: &x, shift: None, weight: &ones, bias: &zeros, groups: 32, eps: 1e-6, silu: false };
    let got = call.run(&Emulator, call.shape().unwrap()).unwrap();
    // float32 itself knows such values to 2⁻¹² only, and libtorch's own float32 is no nearer.
    let own = (x.group_norm(32, Some(&ones), Some(&zeros), 1e-6, false).to_kind(Kind::Double) - reference(&call)).norm();
    let error = (got.to_kind(Kind::Double) - reference(&call)).norm();
    assert!(error.double_value(&[]) <= 2.0 * own.double_value(&[]) + 1e-3, "{error} against libtorch's {own}");
}

#[test]
fn what_the_kernels_cannot_do_is_left_to_libtorch() {
    let fits = |x: &Tensor, channels: i64, groups: i64| {
        let weight = Tensor::ones([channels], (x.kind(), Device::Cpu));
        GroupNormCall { x, shift: None, weight: &weight, bias: &weight, groups, eps: 1e-5, silu: true }.shape().is_some()
    };
    let x = randn(&[2, 64, 4, 4], 0.0, Kind::BFloat16);
    assert!(fits(&x, 64, 32));
    assert!(!fits(&x.contiguous(), 64, 32), "channels first");
    assert!(!fits(&x, 32, 32), "a weight of other channels");
    assert!(!fits(&x, 64, 33), "groups that do not divide the channels");
    assert!(!fits(&randn(&[1, 12, 4, 4], 0.0, Kind::BFloat16), 12, 4), "channels that packs do not divide");
    assert!(!fits(&randn(&[1, 64, 4, 4], 0.0, Kind::Double), 64, 32), "a dtype without kernels");
    assert!(!fits(&randn(&[1, 65_536, 1, 1], 0.0, Kind::Float), 65_536, 32), "more channels than a block has threads for");
    assert!(
        group_norm(&GroupNormCall { x: &x, shift: None, weight: &x, bias: &x, groups: 2, eps: 0.0, silu: true }).is_none(),
        "a CPU"
    );
}

#[test]
fn large_feature_maps_are_divided_among_enough_and_not_too_many_blocks() {
    let shape = |size: &[i64; 4]| {
        let (x, weight) = (randn(size, 0.0, Kind::BFloat16), Tensor::ones([size[1]], (Kind::BFloat16, Device::Cpu)));
        let call = GroupNormCall { x: &x, shift: None, weight: &weight, bias: &weight, groups: 32, eps: 1e-5, silu: true };
        call.shape().unwrap()
    };
    let NormShape { block, cells_per_block, pieces, .. } = shape(&[2, 320, 64, 64]);
    assert_eq!((block, pieces), ([40, 12], (64 * 64 + cells_per_block - 1) / cells_per_block));
    assert!((100..=300).contains(&(2 * pieces)), "{pieces} pieces of each of two samples");
    assert!(shape(&[1, 128, 512, 512]).pieces <= 256);
    assert_eq!(shape(&[1, 2560, 8, 8]).block, [320, 1]);
}

#[test]
fn a_gated_gelu_is_libtorchs() {
    for kind in KINDS {
        let projected = randn(&[2, 77, 2 * 40], 0.0, kind);
        let got = run_geglu(&Emulator, &projected, geglu_inner(&projected).unwrap()).unwrap();
        let halves = projected.to_kind(Kind::Double).chunk(2, -1);
        assert_eq!(got.size(), [2, 77, 40]);
        assert_close(&got, &(&halves[0] * halves[1].gelu("none")), 1.0);
    }
    assert_eq!(geglu_inner(&randn(&[2, 3, 12], 0.0, Kind::BFloat16)), None, "halves that packs do not divide");
    assert_eq!(geglu_inner(&randn(&[2, 32, 8], 0.0, Kind::Float).transpose(1, 2)), None, "rows with gaps");
}

#[test]
fn a_bias_and_a_residual_are_added_in_one_pass() {
    for kind in KINDS {
        let [mut x, residual] = [0.0, 1.0].map(|mean| randn(&[2, 24, 5, 9], mean, kind));
        let bias = randn(&[24], 0.0, kind);
        assert!(can_be_added(&x, &bias, &residual));
        let double = |tensor: &Tensor| tensor.to_kind(Kind::Double);
        let expected = double(&x) + double(&bias).reshape([1, 24, 1, 1]) + double(&residual);
        run_add(&Emulator, &mut x, (&bias, &residual)).unwrap();
        assert_close(&x, &expected, 1.0);
        assert!(!can_be_added(&x, &bias, &residual.contiguous()), "another layout");
    }
}

#[test]
fn what_is_asked_for_on_a_device_with_kernels_is_launched_there() {
    let (x, bias) = (randn(&[1, 32, 4, 4], 0.0, Kind::Float), randn(&[32], 0.0, Kind::Float));
    let projected = randn(&[1, 3, 16], 0.0, Kind::Float);
    let norm = GroupNormCall { x: &x, shift: None, weight: &bias, bias: &bias, groups: 8, eps: 1e-5, silu: true };
    let all = || {
        let added = add_bias_residual(&mut x.copy(), &bias, &x).is_some_and(|added| added.is_ok());
        let [normed, gated] = [group_norm(&norm), geglu(&projected)].map(|output| output.is_some_and(|output| output.is_ok()));
        [normed, gated, added]
    };
    assert_eq!((has_kernels(&x), all()), (false, [false; 3]));
    let ((has, done), launched) = with_kernels_on_the_cpu(|| (has_kernels(&x), all()));
    assert_eq!((has, done), (true, [true; 3]));
    assert_eq!(launched, ["add_bias_residual_float", "group_norm_statistics_float", "group_norm_apply_float", "geglu_float"]);
}
