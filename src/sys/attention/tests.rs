use half::bf16;
use proptest::prelude::*;

use super::*;

/// Of values of about 1: two roundings to bfloat16, of the weights and of the result.
const TOLERANCE: f64 = 8e-3;

/// Numbers between −2 and 2 that look random and are the same in every run.
fn numbers(count: usize, seed: u64) -> Vec<bf16> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bf16::from_f64((state >> 11) as f64 / (1_u64 << 53) as f64 * 4.0 - 2.0)
    };
    std::iter::repeat_with(next).take(count).collect()
}

struct Inputs {
    shape: AttentionShape,
    query: Vec<bf16>,
    key: Vec<bf16>,
    value: Vec<bf16>,
}

impl Inputs {
    fn new(shape: AttentionShape) -> Self {
        let row = shape.heads * shape.width;
        let rows = |rows: usize, seed| numbers(shape.batch * rows * row, seed);
        Self { shape, query: rows(shape.queries, 1), key: rows(shape.keys, 2), value: rows(shape.keys, 3) }
    }

    fn run(&self, threads: usize) -> Vec<bf16> {
        let rows = |values| Rows { values, stride: self.shape.heads * self.shape.width };
        attention(rows(&self.query), [rows(&self.key), rows(&self.value)], self.shape, threads).unwrap()
    }

    /// The same in f64, as the formula has it.
    fn expected(&self) -> Vec<f64> {
        let AttentionShape { batch, heads, queries, keys, width } = self.shape;
        let at = |values: &[bf16], row: usize, head: usize, column: usize| values[(row * heads + head) * width + column].to_f64();
        let mut output = Vec::new();
        for (row, head) in (0..batch * queries).flat_map(|row| (0..heads).map(move |head| (row, head))) {
            let others: Vec<usize> = (0..keys).map(|key| row / queries * keys + key).collect();
            let product =
                |key| (0..width).map(|column| at(&self.query, row, head, column) * at(&self.key, key, head, column)).sum::<f64>();
            let scores: Vec<f64> = others.iter().map(|&key| product(key) / (width as f64).sqrt()).collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            output.extend((0..width).map(|column| {
                others.iter().zip(&weights).map(|(&key, weight)| weight * at(&self.value, key, head, column)).sum::<f64>() / total
            }));
        }
        output
    }
}

/// Says so where this processor has no kernel; there is nothing to be tested then.
fn is_here() -> bool {
    let is_here = processor_multiplies_bfloat16();
    if !is_here {
        eprintln!("not tested: this processor does not multiply bfloat16");
    }
    is_here
}

fn shape(batch: usize, heads: usize, [queries, keys]: [usize; 2], width: usize) -> AttentionShape {
    AttentionShape { batch, heads, queries, keys, width }
}

#[test]
fn the_kernel_computes_the_formula_at_every_width_that_stable_diffusion_has() {
    if !is_here() {
        return;
    }
    for width in [8, 32, 40, 64, 80, 96, 160, 512] {
        let inputs = Inputs::new(shape(2, 2, [30, 333], width));
        for (got, expected) in inputs.run(2).iter().zip(inputs.expected()) {
            assert!((got.to_f64() - expected).abs() < TOLERANCE, "{got} is not {expected} at width {width}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn the_kernel_computes_the_formula_whatever_the_number_of_rows(
        batch in 1..3_usize,
        heads in 1..4_usize,
        rows in [1..60_usize, 1..600_usize],
        half_width in 1..24_usize,
    ) {
        prop_assume!(is_here());
        let inputs = Inputs::new(shape(batch, heads, rows, 2 * half_width));
        for (got, expected) in inputs.run(3).iter().zip(inputs.expected()) {
            prop_assert!((got.to_f64() - expected).abs() < TOLERANCE, "{got} is not {expected}");
        }
    }

    #[test]
    fn a_samples_bits_depend_neither_on_its_company_nor_on_the_threads(rows in [1..60_usize, 1..300_usize], threads in 1..5_usize) {
        prop_assume!(is_here());
        let all = Inputs::new(shape(3, 2, rows, 16));
        let together = all.run(threads);
        let one = shape(1, 2, rows, 16);
        let [asked, looked_at] = rows.map(|rows| rows * 32);
        let [query, key, value] = [(&all.query, asked), (&all.key, looked_at), (&all.value, looked_at)]
            .map(|(values, length)| values[length..2 * length].to_vec());
        let alone = Inputs { shape: one, query, key, value }.run(1);
        prop_assert_eq!(&together[asked..2 * asked], &alone[..]);
    }
}

#[test]
fn queries_keys_and_values_may_stand_side_by_side() {
    if !is_here() {
        return;
    }
    let inputs = Inputs::new(shape(2, 2, [40, 40], 8));
    let rows = inputs.query.chunks(16).zip(inputs.key.chunks(16)).zip(inputs.value.chunks(16));
    let joined: Vec<bf16> = rows.flat_map(|((query, key), value)| [query, key, value].concat()).collect();
    let part = |place: usize| Rows { values: &joined[place * 16..], stride: 48 };
    assert_eq!(attention(part(0), [part(1), part(2)], inputs.shape, 2).unwrap(), inputs.run(2));
}

#[test]
fn what_is_no_number_shows_in_the_rows_that_saw_it() {
    if !is_here() {
        return;
    }
    let mut inputs = Inputs::new(shape(2, 1, [30, 30], 8));
    inputs.value[3] = bf16::NAN;
    let output = inputs.run(1);
    let (first, second) = output.split_at(240);
    assert!(first.iter().skip(3).step_by(8).all(|value| value.is_nan()));
    assert!(second.iter().all(|value| value.is_finite()));
    inputs.key[240] = bf16::INFINITY;
    assert!(inputs.run(1)[240..].iter().any(|value| value.is_nan()));
}

#[test]
fn rows_that_are_not_there_are_not_read() {
    let inputs = Inputs::new(shape(1, 2, [8, 8], 8));
    let rows = |values| Rows { values, stride: 16 };
    let run = |shape| attention(rows(&inputs.query), [rows(&inputs.key), rows(&inputs.value)], shape, 1);
    assert!(run(shape(1, 2, [9, 8], 8)).is_none());
    assert!(run(shape(1, 2, [8, 9], 8)).is_none());
    assert!(run(shape(1, 3, [8, 8], 8)).is_none(), "the heads do not fit into a row");
    assert!(run(shape(1, 2, [8, 8], 7)).is_none(), "an odd width has no pairs");
    assert!(run(shape(1, 2, [8, 0], 8)).is_none());
}
