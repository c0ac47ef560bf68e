//! A text of any length as chunks that the text encoder can read: AUTOMATIC1111's `modules/sd_hijack_clip.py`.

use std::hash::{Hash, Hasher};

use crate::{diffusion::tokenizer::ClipTokenizer, domain::Piece};

/// Where a chunk is full and a comma is at most this many tokens back, what follows the comma goes to the next chunk.
const COMMA_BACKTRACK: usize = 20;

/// What the text encoder reads at once.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::diffusion) struct Chunk {
    /// As many as the text encoder takes: start, words, end, padding.
    pub(super) ids: Vec<i64>,
    /// Of each id; none where all are 1.
    pub(super) weights: Option<Vec<f32>>,
}

// Weights are finite, so that each is equal to itself.
impl Eq for Chunk {}

impl Hash for Chunk {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ids.hash(state);
        // 0 and -0 are equal and must not be told apart.
        let bits = |weights: &Vec<f32>| weights.iter().map(|weight| (weight + 0.0).to_bits()).collect::<Vec<u32>>();
        self.weights.as_ref().map(bits).hash(state);
    }
}

impl Chunk {
    /// A chunk without words.
    pub(super) fn empty(tokenizer: &ClipTokenizer) -> Self {
        Self { ids: tokenizer.framed(&[]), weights: None }
    }
}

/// Cuts a text into chunks, at least one.
///
/// # Errors
/// When the tokenizer refuses the text.
pub(super) fn chunks(tokenizer: &ClipTokenizer, pieces: &[Piece]) -> Result<Vec<Chunk>, tokenizers::Error> {
    let mut filler = Filler { tokenizer, chunks: Vec::new(), words: Vec::new(), after_comma: None };
    for piece in pieces {
        match piece {
            Piece::Break => filler.next_chunk(),
            Piece::Words { text, weight } => {
                tokenizer.words(text)?.into_iter().for_each(|word| filler.push(word, *weight as f32));
            }
        }
    }
    if !filler.words.is_empty() || filler.chunks.is_empty() {
        filler.next_chunk();
    }
    Ok(filler.chunks)
}

struct Filler<'a> {
    tokenizer: &'a ClipTokenizer,
    chunks: Vec<Chunk>,
    /// Of the chunk that is being filled, with their weights.
    words: Vec<(u32, f32)>,
    /// The place behind the last comma in it.
    after_comma: Option<usize>,
}

impl Filler<'_> {
    fn push(&mut self, word: u32, weight: f32) {
        let is_full = self.words.len() == self.tokenizer.room();
        if self.tokenizer.comma() == Some(word) {
            self.after_comma = Some(self.words.len() + 1);
        } else if let Some(place) = self.after_comma.filter(|place| is_full && self.words.len() + 1 - place <= COMMA_BACKTRACK) {
            let moved = self.words.split_off(place);
            self.next_chunk();
            self.words = moved;
        }
        if self.words.len() == self.tokenizer.room() {
            self.next_chunk();
        }
        self.words.push((word, weight));
    }

    fn next_chunk(&mut self) {
        let (words, mut weights): (Vec<u32>, Vec<f32>) = std::mem::take(&mut self.words).into_iter().unzip();
        self.after_comma = None;
        let ids = self.tokenizer.framed(&words);
        weights.insert(0, 1.0);
        weights.resize(ids.len(), 1.0);
        let is_weighted = weights.iter().any(|&weight| weight != 1.0);
        self.chunks.push(Chunk { ids, weights: is_weighted.then_some(weights) });
    }
}
