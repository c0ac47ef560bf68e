//! Linears whose products may be made of 8-bit floats.
//!
//! The format is e4m3fn (Micikevicius et al., 2022): a sign, four bits of exponent, three of mantissa, 448 at most. What is multiplied is
//! scaled into it first, each row of the input over its own largest magnitude and each output channel of the weight over its own: torchao's
//! `Float8DynamicActivationFloat8WeightConfig` with `PerRow` granularity. A row's scale is its own, so that who shares the call changes
//! nothing of it.
//!
//! On GPUs that multiply this format (compute capability 8.9 and later) libtorch's `_scaled_mm` takes both scales, wants inputs and outputs
//! in multiples of 16, the weight transposed, and bfloat16 out and as bias. On a CPU it knows one scale for everything: there the product is
//! made without scales, in float32, and scaled behind. That is for trying things out; it is slower than the exact product.

use tch::{Device, Kind, TchError, Tensor};

use super::{Linear, Result, row_by_row};
use crate::{
    diffusion::{
        error::{LoadError, engine_error},
        meter::{Op, measure},
    },
    dispatch::ports::EngineError,
    sys,
};

/// The largest number of e4m3fn.
const LARGEST: f64 = 448.0;
/// Rows of nothing but zeros have a scale, too. torchao's.
const LEAST: f64 = 1e-12;
/// Inputs and outputs come in multiples of this.
pub(in crate::diffusion) const FP8_MULTIPLE: i64 = 16;

/// How the products of a UNet call's transformers are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::diffusion) enum Products {
    /// In the model's dtype.
    #[default]
    Exact,
    /// Of 8-bit floats, where a linear has such weights.
    Fp8,
}

/// A linear of a transformer, which may have a second set of weights in fp8.
#[derive(Debug)]
pub(in crate::diffusion) struct TransformerLinear {
    exact: Linear,
    fp8: Option<Fp8Weights>,
}

#[derive(Debug)]
struct Fp8Weights {
    /// `[out, in]` e4m3fn
    weight: Tensor,
    /// `[1, out]` float32
    scale: Tensor,
    /// `[out]`; on a GPU in bfloat16, for so it is added.
    bias: Option<Tensor>,
}

/// What has been scaled into fp8, row by row.
struct Scaled {
    /// `[rows, width]` e4m3fn
    values: Tensor,
    /// `[rows, 1]` float32: what a row's values are multiples of.
    scale: Tensor,
}

impl From<Linear> for TransformerLinear {
    fn from(exact: Linear) -> Self {
        Self { exact, fp8: None }
    }
}

impl TransformerLinear {
    /// Makes the second set of weights, where the sizes are such that a GPU takes them.
    ///
    /// # Errors
    /// When the device fails.
    pub(in crate::diffusion) fn add_fp8(&mut self) -> Result<()> {
        let Linear { weight, bias, .. } = &self.exact;
        if weight.size().iter().any(|side| side % FP8_MULTIPLE != 0) {
            return Ok(());
        }
        let Scaled { values, scale } = Scaled::of(weight)?;
        let kind = if weight.device() == Device::Cpu { Kind::Float } else { Kind::BFloat16 };
        let bias = bias.as_ref().map(|bias| bias.f_to_kind(kind)).transpose()?;
        self.fp8 = Some(Fp8Weights { weight: values, scale: scale.f_reshape([1, -1])?, bias });
        Ok(())
    }

    /// `[…, in] → […, out]`
    pub(in crate::diffusion) fn forward(&self, x: &Tensor, products: Products) -> Result<Tensor> {
        match &self.fp8 {
            Some(fp8) if products == Products::Fp8 => measure(
                Op::Linear,
                || self.exact.weight.size()[1],
                || match self.exact.batch_invariant {
                    true => row_by_row(x, |row| fp8.apply(row)),
                    false => fp8.apply(x),
                },
            ),
            _ => self.exact.forward(x),
        }
    }
}

impl Fp8Weights {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let mut size = x.size();
        let rows = Scaled::of(&x.f_reshape([-1, self.weight.size()[1]])?)?;
        size.iter_mut().last().into_iter().for_each(|last| *last = self.weight.size()[0]);
        let product = if x.device() == Device::Cpu { self.product_on_cpu(&rows) } else { self.product_on_gpu(&rows) };
        product?.f_to_kind(x.kind())?.f_reshape(&size)
    }

    /// `[rows, out]` bfloat16. Sums are kept in the precision of the GPU's own accumulators (`use_fast_accum`), as torchao has it: what that
    /// loses is little beside what 8 bits do.
    fn product_on_gpu(&self, rows: &Scaled) -> Result<Tensor> {
        let (scales, none) = ([&rows.scale, &self.scale], None::<&Tensor>);
        rows.values.f_internal_scaled_mm(
            &self.weight.f_transpose(0, 1)?,
            scales[0],
            scales[1],
            self.bias.as_ref(),
            none,
            Kind::BFloat16,
            true,
        )
    }

    /// `[rows, out]` float32
    fn product_on_cpu(&self, rows: &Scaled) -> Result<Tensor> {
        let (one, none) = (Tensor::f_ones([1], (Kind::Float, Device::Cpu))?, None::<&Tensor>);
        let mut product =
            rows.values.f_internal_scaled_mm(&self.weight.f_transpose(0, 1)?, &one, &one, none, none, Kind::Float, false)?;
        let mut scaled = product.f_mul_(&rows.scale)?.f_mul_(&self.scale)?;
        match &self.bias {
            Some(bias) => scaled.f_add_(bias),
            None => Ok(scaled),
        }
    }
}

impl Scaled {
    /// Scales each row of `[rows, width]` so that its largest magnitude is the largest there is. What is no number stays none.
    fn of(x: &Tensor) -> Result<Self> {
        if let Some(scaled) = sys::scale_rows_to_fp8(x, LEAST) {
            return scaled.map(|(values, scale)| Self { values, scale });
        }
        let largest = x.f_abs()?.f_amax([-1], true)?.f_to_kind(Kind::Float)?.f_clamp_min(LEAST)?;
        let values = x.f_mul(&largest.f_full_like(LARGEST)?.f_div(&largest)?)?.f_to_kind(Kind::Float8e4m3fn)?;
        Ok(Self { values, scale: largest.f_div_scalar(LARGEST)? })
    }
}

/// Whether a device multiplies 8-bit floats: tries it.
///
/// # Errors
/// When it does not, or fails.
pub(in crate::diffusion) fn check_fp8(device: Device) -> std::result::Result<(), LoadError> {
    let product = || -> Result<()> {
        let weight = Tensor::f_ones([FP8_MULTIPLE, FP8_MULTIPLE], (Kind::BFloat16, device))?;
        let mut linear = TransformerLinear::from(Linear { weight: weight.shallow_clone(), bias: None, batch_invariant: false });
        linear.add_fp8()?;
        linear.forward(&weight, Products::Fp8).map(drop)
    };
    product().map_err(|error| refusal(device, error))
}

fn refusal(device: Device, error: TchError) -> LoadError {
    match engine_error(&error) {
        EngineError::Failed(reason) => LoadError::Device(format!(
            "fp8_linears: the device {device:?} multiplies no 8-bit floats, GPUs of compute capability 8.9 and later do: {reason}"
        )),
        _ => LoadError::Torch(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::with_kernels_on_the_cpu;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    fn linear(inputs: i64, outputs: i64, batch_invariant: bool) -> TransformerLinear {
        let weight = Tensor::randn([outputs, inputs], CPU) / (inputs as f64).sqrt();
        let mut linear = TransformerLinear::from(Linear { weight, bias: Some(Tensor::randn([outputs], CPU)), batch_invariant });
        linear.add_fp8().unwrap();
        linear
    }

    fn error(got: &Tensor, expected: &Tensor) -> f64 {
        (got.to_kind(Kind::Double) - expected.to_kind(Kind::Double)).norm().double_value(&[])
            / expected.to_kind(Kind::Double).norm().double_value(&[])
    }

    #[test]
    fn a_product_in_8_bits_is_the_exact_one_to_within_a_twentieth() {
        for (kind, inputs, outputs) in [(Kind::Float, 640, 48), (Kind::BFloat16, 64, 320), (Kind::Half, 16, 16)] {
            let linear = linear(inputs, outputs, true);
            let x = Tensor::randn([2, 9, inputs], CPU);
            let got = linear.forward(&x.to_kind(kind), Products::Fp8).unwrap();
            assert_eq!((got.size(), got.kind()), (vec![2, 9, outputs], kind));
            let error = error(&got, &linear.forward(&x, Products::Exact).unwrap());
            assert!((1e-3..0.05).contains(&error), "{error} in {kind:?}");
        }
    }

    /// `torch._scaled_mm` of torch 2.11 on a CPU, for each value with the scales of its row and its channel, and the inputs scaled by
    /// `(t * (448 / t.abs().amax(1, True))).to(torch.float8_e4m3fn)`: the first four channels of two rows.
    const GOLDEN: [f32; 8] =
        [0.299_343_76, -0.050_886_75, -1.968_102_5, -9.116_56, -1.815_950_3, -7.138_816, -22.496_574, -58.552_032];

    #[test]
    fn a_product_in_8_bits_is_torchs_own() {
        let numbers = |rows: i64, step: f64| {
            let places = Tensor::arange(rows * 16, CPU);
            (places * step).sin().reshape([rows, 16]) * Tensor::arange(rows, CPU).unsqueeze(1).exp()
        };
        let mut linear = TransformerLinear::from(Linear { weight: numbers(16, 0.37), bias: None, batch_invariant: true });
        linear.add_fp8().unwrap();
        let got = linear.forward(&numbers(2, 1.3), Products::Fp8).unwrap();
        let got = Vec::<f32>::try_from(got.narrow(1, 0, 4).flatten(0, -1)).unwrap();
        for (got, expected) in got.iter().zip(GOLDEN) {
            assert!((got - expected).abs() <= 1e-5 * expected.abs(), "{got} and not {expected}");
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_others_however_large_they_are() {
        for batch_invariant in [true, false] {
            let linear = linear(64, 32, batch_invariant);
            let x = Tensor::randn([3, 5, 64], CPU) * Tensor::from_slice(&[1.0_f32, 1e4, 1e-4]).reshape([3, 1, 1]);
            let together = linear.forward(&x, Products::Fp8).unwrap();
            for row in 0..3 {
                let alone = linear.forward(&x.narrow(0, row, 1), Products::Fp8).unwrap();
                let difference = error(&together.narrow(0, row, 1), &alone);
                assert!(if batch_invariant { difference == 0.0 } else { difference < 1e-6 }, "row {row} differs by {difference}");
            }
        }
    }

    #[test]
    fn what_is_scaled_and_scaled_back_is_itself_to_within_a_sixteenth() {
        let x = Tensor::randn([7, 48], CPU) * Tensor::arange(7, CPU).unsqueeze(1).exp2();
        let Scaled { values, scale } = Scaled::of(&x).unwrap();
        assert_eq!((values.kind(), scale.size()), (Kind::Float8e4m3fn, vec![7, 1]));
        let back = values.to_kind(Kind::Float) * &scale;
        // Half a step of three bits of mantissa, and of the smallest numbers half the smallest.
        let bound = x.abs() / 16.0 + &scale * 2f64.powi(-10);
        assert!(bool::try_from((&back - &x).abs().le_tensor(&bound).all()).unwrap());
        let largest = |tensor: &Tensor| tensor.abs().amax([1], true);
        assert!(error(&largest(&back), &largest(&x)) < 1e-6, "the largest of a row is kept as it is");
    }

    #[test]
    fn zeros_stay_zeros_and_what_is_no_number_is_not_hidden() {
        let linear = linear(32, 16, true);
        let x = Tensor::zeros([1, 3, 32], CPU);
        drop(x.get(0).get(1).fill_(f64::NAN));
        drop(x.get(0).get(2).get(5).fill_(f64::INFINITY));
        let got = linear.forward(&x, Products::Fp8).unwrap();
        assert_eq!(&got.get(0).get(0), linear.exact.bias.as_ref().unwrap());
        assert!(bool::try_from(got.narrow(1, 1, 2).isnan().all()).unwrap());
    }

    #[test]
    fn sizes_that_a_gpu_does_not_take_stay_exact() {
        for (inputs, outputs) in [(20, 32), (32, 20)] {
            let linear = linear(inputs, outputs, true);
            let x = Tensor::randn([1, 3, inputs], CPU);
            assert_eq!(linear.forward(&x, Products::Fp8).unwrap(), linear.forward(&x, Products::Exact).unwrap());
        }
    }

    #[test]
    fn the_kernel_scales_as_libtorch_does() {
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            let x = (Tensor::randn([5, 80], CPU) * Tensor::arange(5, CPU).unsqueeze(1)).to_kind(kind);
            drop(x.get(3).get(7).fill_(f64::NAN));
            let expected = Scaled::of(&x).unwrap();
            let (got, launched) = with_kernels_on_the_cpu(|| Scaled::of(&x).unwrap());
            assert_eq!(launched.len(), 1, "{launched:?}");
            let others = |tensor: &Tensor| tensor.to_kind(Kind::Float).index_select(0, &Tensor::from_slice(&[0_i64, 1, 2, 4]));
            assert_eq!(others(&got.values), others(&expected.values), "{kind:?}");
            assert_eq!(others(&got.scale), others(&expected.scale), "{kind:?}");
            let no_number = got.values.to_kind(Kind::Float).get(3).get(7);
            assert!(no_number.double_value(&[]).is_nan());
        }
    }

    #[test]
    fn a_cpu_can_and_a_device_that_cannot_says_so() {
        check_fp8(Device::Cpu).unwrap();
        let error = TchError::Torch("torch._scaled_mm is only supported on …\nException raised from …".to_owned());
        let text = refusal(Device::Cuda(0), error).to_string();
        assert!(
            text.starts_with("fp8_linears: the device Cuda(0) multiplies no 8-bit floats") && !text.contains("Exception"),
            "{text}"
        );
    }
}
