//! The processor's vectors of 16 numbers, without a pointer outside this file.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
    _mm512_loadu_si512, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_sub_ps,
};

/// Values of 32 bits in a vector.
pub(super) const LANES: usize = 16;

/// Reads a vector.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(values: &[f32; LANES]) -> __m512 {
    // SAFETY: a reference to 16 values of 32 bits may be read as 64 bytes; the instruction asks for no alignment.
    unsafe { _mm512_loadu_ps(values.as_ptr()) }
}

/// Writes a vector.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(values: &mut [f32; LANES], vector: __m512) {
    // SAFETY: as for `load`, and the reference is the only one.
    unsafe { _mm512_storeu_ps(values.as_mut_ptr(), vector) }
}

/// Reads 16 pairs of bfloat16.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_pairs(pairs: &[u32; LANES]) -> __m512i {
    // SAFETY: as for `load`.
    unsafe { _mm512_loadu_si512(pairs.as_ptr().cast()) }
}

/// Rounds 32 numbers to bfloat16 and writes them as 16 pairs.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn store_pairs(pairs: &mut [u32; LANES], [first, second]: [__m512; 2]) {
    let rounded = _mm512_cvtne2ps_pbh(second, first);
    // SAFETY: both are 64 bytes without a forbidden pattern.
    let rounded: __m512i = unsafe { std::mem::transmute(rounded) };
    // SAFETY: as for `store`.
    unsafe { _mm512_storeu_si512(pairs.as_mut_ptr().cast(), rounded) }
}

/// sum + a₀·b₀ + a₁·b₁ for 16 pairs, in float32.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn dot(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: both are 64 bytes without a forbidden pattern.
    let a: __m512bh = unsafe { std::mem::transmute(a) };
    // SAFETY: as above.
    let b: __m512bh = unsafe { std::mem::transmute(b) };
    _mm512_dpbf16_ps(sum, a, b)
}

/// 2ˣ within 5e-5 of itself, a fortieth of what rounding to bfloat16 takes: 2 to the nearest whole number, times the first terms of
/// exp(r·ln 2) for what is left.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn exp2(x: __m512) -> __m512 {
    const TERMS: [f32; 4] = [0.055_504_11, 0.240_226_5, std::f32::consts::LN_2, 1.0];
    let whole = _mm512_roundscale_ps::<0>(x);
    let rest = _mm512_sub_ps(x, whole);
    let mut power = _mm512_set1_ps(0.009_618_129);
    for term in TERMS {
        power = _mm512_fmadd_ps(power, rest, _mm512_set1_ps(term));
    }
    _mm512_scalef_ps(power, whole)
}

/// `a + b`
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add(a: __m512, b: __m512) -> __m512 {
    _mm512_add_ps(a, b)
}
