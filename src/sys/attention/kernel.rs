//! The kernel: rows in blocks of 24, keys in blocks of 256, and a softmax that is corrected as it goes.

use std::{
    arch::x86_64::{
        _mm512_fmadd_ps, _mm512_max_ps, _mm512_reduce_add_ps, _mm512_reduce_max_ps, _mm512_set1_epi32, _mm512_set1_ps,
        _mm512_setzero_ps, _mm512_setzero_si512,
    },
    array,
    sync::{Mutex, PoisonError},
    thread,
};

use half::bf16;

use super::{
    AttentionShape, Rows,
    pack::{Packed, pair, vectors},
    vectors::{LANES, add, dot, exp2, load, load_pairs, store, store_pairs},
};

/// Rows of a block: a multiple of what every inner loop takes at a time (4, 6 and 8).
const ROWS: usize = 24;
/// Keys of a block: with 24 rows their scores are 24 KiB, which stay in the first-level cache.
const KEYS: usize = 256;
/// Vectors of a row of scores.
const SCORES: usize = KEYS / LANES;
/// Vectors of a row of weights, which are pairs.
const WEIGHTS: usize = SCORES / 2;
/// Blocks of rows that a thread takes at a time at most, so that the keys of a head are read from the cache.
const BLOCKS: usize = 8;
/// Less than any score, and still a number when it is scaled.
const NEVER: f32 = f32::MIN / 2.0;

/// As [`super::attention`], for a processor and a shape that have been checked.
pub(super) fn attention(query: Rows, others: [Rows; 2], shape: AttentionShape, threads: usize) -> Vec<bf16> {
    let heads: Vec<(usize, usize)> = (0..shape.batch).flat_map(|sample| (0..shape.heads).map(move |head| (sample, head))).collect();
    let mut packed: Vec<Option<Packed>> = heads.iter().map(|_| None).collect();
    share(packed.iter_mut().zip(heads), threads.min(shape.batch * shape.heads), |(packed, head)| {
        *packed = Some(Packed::of(others, head, shape))
    });
    let packed: Vec<Packed> = packed.into_iter().flatten().collect();

    let width = shape.heads * shape.width;
    let blocks = (shape.batch * shape.queries).div_ceil(ROWS * threads * 4).clamp(1, BLOCKS);
    let mut output = vec![bf16::ZERO; shape.batch * shape.queries * width];
    let samples = output.chunks_mut(shape.queries * width).enumerate();
    let piece = blocks * ROWS * width;
    let pieces = shape.batch * (shape.queries * width).div_ceil(piece);
    let tasks = samples.flat_map(|(sample, rows)| {
        rows.chunks_mut(piece).enumerate().map(move |(task, rows)| (sample, task * blocks * ROWS, rows))
    });
    share(tasks, threads.min(pieces), |(sample, first, output)| {
        let task =
            Task { query, packed: &packed[sample * shape.heads..][..shape.heads], shape, first: sample * shape.queries + first };
        // SAFETY: `AttentionShape::is_supported` has found the features on this processor.
        unsafe { task.run(output) }
    });
    output
}

/// Does each piece of work on whichever thread is free. Where the system has no more threads, those that there are do it.
fn share<T: Send>(work: impl Iterator<Item = T> + Send, threads: usize, job: impl Fn(T) + Sync) {
    let work = Mutex::new(work);
    let next = || work.lock().unwrap_or_else(PoisonError::into_inner).next();
    let run = || {
        while let Some(piece) = next() {
            job(piece);
        }
    };
    thread::scope(|scope| {
        let started = (1..threads).map(|_| thread::Builder::new().spawn_scoped(scope, run)).take_while(Result::is_ok);
        started.for_each(drop);
        run();
    });
}

/// Some rows of one sample, all heads.
struct Task<'a> {
    query: Rows<'a>,
    packed: &'a [Packed],
    shape: AttentionShape,
    /// Its first row among all samples'.
    first: usize,
}

/// A block on its way.
struct Block {
    /// `[ROWS][width / 2]` pairs
    query: Vec<u32>,
    /// Of the present keys.
    scores: Box<[[[f32; LANES]; SCORES]; ROWS]>,
    /// What the scores weigh, as pairs.
    weights: Box<[[[u32; LANES]; WEIGHTS]; ROWS]>,
    /// The weighted sums of the values: `[ROWS][columns]`.
    sums: Vec<[f32; LANES]>,
    /// The largest score until now, in powers of two.
    largest: [f32; ROWS],
    /// The sum of the weights until now.
    total: [f32; ROWS],
}

impl Task<'_> {
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn run(&self, output: &mut [bf16]) {
        let width = self.shape.heads * self.shape.width;
        let mut block = Block::new(self.shape);
        for (head, packed) in self.packed.iter().enumerate() {
            for (index, rows) in output.chunks_mut(ROWS * width).enumerate() {
                let count = rows.len() / width;
                block.begin(self.query, (self.first + index * ROWS, count), (head, self.shape));
                block.look(packed, self.shape);
                block.write(rows, (head, self.shape));
            }
        }
    }
}

impl Block {
    fn new(shape: AttentionShape) -> Self {
        Self {
            query: vec![0; ROWS * shape.width / 2],
            scores: Box::new([[[0.0; LANES]; SCORES]; ROWS]),
            weights: Box::new([[[0; LANES]; WEIGHTS]; ROWS]),
            sums: vec![[0.0; LANES]; ROWS * vectors(shape.width)],
            largest: [0.0; ROWS],
            total: [0.0; ROWS],
        }
    }

    /// Takes the queries of `count` rows; those that are missing are zeros, whose results nobody reads.
    fn begin(&mut self, query: Rows, (first, count): (usize, usize), (head, shape): (usize, AttentionShape)) {
        self.query.fill(0);
        for (row, pairs) in self.query.chunks_mut(shape.width / 2).take(count).enumerate() {
            let (values, _) = query.values[(first + row) * query.stride + head * shape.width..][..shape.width].as_chunks::<2>();
            pairs.iter_mut().zip(values).for_each(|(pairs, &[low, high])| *pairs = pair(low, high));
        }
        self.sums.fill([0.0; LANES]);
        self.largest = [f32::NEG_INFINITY; ROWS];
        self.total = [0.0; ROWS];
    }

    /// Looks at all keys.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn look(&mut self, packed: &Packed, shape: AttentionShape) {
        let (pairs, columns) = (shape.width / 2, vectors(shape.width));
        for first in (0..shape.keys).step_by(KEYS) {
            let keys = KEYS.min(shape.keys - first);
            self.score(&packed.keys[first / LANES * pairs..][..vectors(keys) * pairs], pairs);
            self.soften(keys, std::f32::consts::LOG2_E / (shape.width as f32).sqrt());
            self.weigh(&packed.values[first / 2 * columns..][..vectors(keys) * LANES / 2 * columns], columns);
        }
    }

    /// q·kᵀ, 6 rows and up to 64 keys at a time.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn score(&mut self, keys: &[[u32; LANES]], pairs: usize) {
        for (group, keys) in keys.chunks(4 * pairs).enumerate() {
            for row in (0..ROWS).step_by(6) {
                let query = &self.query[row * pairs..][..6 * pairs];
                let scores = &mut self.scores[row..row + 6];
                match keys.len() / pairs {
                    4 => scores_of::<4>(query, keys, pairs, (scores, 4 * group)),
                    3 => scores_of::<3>(query, keys, pairs, (scores, 4 * group)),
                    2 => scores_of::<2>(query, keys, pairs, (scores, 4 * group)),
                    _ => scores_of::<1>(query, keys, pairs, (scores, 4 * group)),
                }
            }
        }
    }

    /// What the scores of `keys` keys weigh, relative to the largest score until now; sums that were weighed by another are corrected.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn soften(&mut self, keys: usize, scale: f32) {
        let columns = self.sums.len() / ROWS;
        let used = vectors(keys);
        for row in 0..ROWS {
            let scores = &mut self.scores[row];
            scores.as_flattened_mut()[keys..used.next_multiple_of(2) * LANES].fill(NEVER);
            let most = |most, scores| _mm512_max_ps(most, load(scores));
            let largest = scores[..used].iter().fold(_mm512_set1_ps(f32::NEG_INFINITY), most);
            let largest = self.largest[row].max(_mm512_reduce_max_ps(largest) * scale);
            let (factor, shift) = (_mm512_set1_ps(scale), _mm512_set1_ps(-largest));
            let mut total = _mm512_setzero_ps();
            for (scores, weights) in scores[..used.next_multiple_of(2)].as_chunks::<2>().0.iter().zip(&mut self.weights[row]) {
                let weigh = |scores| exp2(_mm512_fmadd_ps(load(scores), factor, shift));
                let two = [weigh(&scores[0]), weigh(&scores[1])];
                total = add(total, add(two[0], two[1]));
                store_pairs(weights, two);
            }
            let correction = (self.largest[row] - largest).exp2();
            self.total[row] = self.total[row] * correction + _mm512_reduce_add_ps(total);
            self.largest[row] = largest;
            if correction != 1.0 {
                self.sums[row * columns..][..columns].as_flattened_mut().iter_mut().for_each(|sum| *sum *= correction);
            }
        }
    }

    /// Adds the weighted values, up to 80 columns at a time and as many rows as leave room for them in the registers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn weigh(&mut self, values: &[[u32; LANES]], columns: usize) {
        let (weights, sums) = (&*self.weights, &mut self.sums);
        for first in (0..columns).step_by(5) {
            let place = (first, columns);
            match 5.min(columns - first) {
                5 => sums_of::<4, 5>(weights, values, place, sums),
                4 => sums_of::<6, 4>(weights, values, place, sums),
                3 => sums_of::<8, 3>(weights, values, place, sums),
                2 => sums_of::<8, 2>(weights, values, place, sums),
                _ => sums_of::<8, 1>(weights, values, place, sums),
            }
        }
    }

    /// Writes the weighted means into the head's place in each row.
    fn write(&self, rows: &mut [bf16], (head, shape): (usize, AttentionShape)) {
        let sums = self.sums.chunks(vectors(shape.width)).zip(self.total);
        for (row, (sums, total)) in rows.chunks_mut(shape.heads * shape.width).zip(sums) {
            let output = &mut row[head * shape.width..][..shape.width];
            output.iter_mut().zip(sums.as_flattened()).for_each(|(output, sum)| *output = bf16::from_f32(sum / total));
        }
    }
}

/// The scores of 6 rows and 16 · N keys.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn scores_of<const N: usize>(
    query: &[u32],
    keys: &[[u32; LANES]],
    pairs: usize,
    (scores, place): (&mut [[[f32; LANES]; SCORES]], usize),
) {
    let query: [&[u32]; 6] = array::from_fn(|row| &query[row * pairs..][..pairs]);
    let keys: [&[[u32; LANES]]; N] = array::from_fn(|block| &keys[block * pairs..][..pairs]);
    let mut sums = [[_mm512_setzero_ps(); N]; 6];
    for pair in 0..pairs {
        let mut present = [_mm512_setzero_si512(); N];
        for block in 0..N {
            present[block] = load_pairs(&keys[block][pair]);
        }
        for row in 0..6 {
            let asked = _mm512_set1_epi32(query[row][pair].cast_signed());
            for block in 0..N {
                sums[row][block] = dot(sums[row][block], asked, present[block]);
            }
        }
    }
    for (scores, sums) in scores.iter_mut().zip(sums) {
        scores[place..place + N].iter_mut().zip(sums).for_each(|(scores, sum)| store(scores, sum));
    }
}

/// Adds to 16 · N columns of every row, R rows at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn sums_of<const R: usize, const N: usize>(
    weights: &[[[u32; LANES]; WEIGHTS]; ROWS],
    values: &[[u32; LANES]],
    (first, columns): (usize, usize),
    sums: &mut [[f32; LANES]],
) {
    let pairs = values.len() / columns;
    for (weights, sums) in weights.chunks_exact(R).zip(sums.chunks_exact_mut(R * columns)) {
        // As long as the loop, so that it need not be checked in it.
        let weights: [&[u32]; R] = array::from_fn(|row| &weights[row].as_flattened()[..pairs]);
        let mut present = [[_mm512_setzero_ps(); N]; R];
        for row in 0..R {
            for column in 0..N {
                present[row][column] = load(&sums[row * columns + first + column]);
            }
        }
        for pair in 0..pairs {
            let values = &values[pair * columns + first..][..N];
            let mut looked_at = [_mm512_setzero_si512(); N];
            for column in 0..N {
                looked_at[column] = load_pairs(&values[column]);
            }
            for row in 0..R {
                let weight = _mm512_set1_epi32(weights[row][pair].cast_signed());
                for column in 0..N {
                    present[row][column] = dot(present[row][column], weight, looked_at[column]);
                }
            }
        }
        for row in 0..R {
            for column in 0..N {
                store(&mut sums[row * columns + first + column], present[row][column]);
            }
        }
    }
}
