//! Prompts in AUTOMATIC1111's syntax: weights, `BREAK`, `AND`, editing and alternation. What is decided here follows its
//! `modules/prompt_parser.py`; where that is lenient, so is this.
//!
//! The order is AUTOMATIC1111's, too, and explains what looks odd: first `AND` cuts the text (brackets or not), then editing turns each
//! branch into one text a step, and only those texts are read for weights. So a weight may span an edit, and an edit may hold weights.
//!
//! # What is an error and what is text
//! A bracket without its partner, `[a:b:c]`, `(a:b)`, and a `|` outside of brackets are text, as in AUTOMATIC1111. Errors are what it would
//! crash on or paint noise with: a weight like `1.2.3`, weights and `when`s out of range, more nesting, branches or texts than are allowed.
//!
//! # What is not as in AUTOMATIC1111
//! - `BREAK` within weighted brackets breaks; there it becomes a negatively weighted word.
//! - A `when` counts the steps that are run. There it counts UNet calls where a step makes two, and with a picture to begin with all steps,
//!   run or not.
//! - Texts of different lengths that `AND` composes are filled up with empty chunks; there the last token's vector is repeated.

mod attention;
mod branches;
mod edits;

use attention::weigh;
use branches::split;
use edits::Edited;

/// The most `AND` branches of a prompt: each is one more row of every UNet call.
pub const MAX_BRANCHES: usize = 8;
/// The most different texts that editing and alternation may make of a prompt: each is encoded.
pub const MAX_TEXTS: usize = 64;
/// The most characters of those texts, each counted as long as the longest, for all are filled up to it: what they take to be encoded.
const MAX_CHARACTERS: usize = 32_768;
/// The deepest brackets.
pub const MAX_NESTING: usize = 64;
/// The largest weight, also of nested brackets together.
pub const MAX_WEIGHT: f64 = 1_000.0;

/// A prompt, parsed for a number of steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// What `AND` composes; at least one.
    pub branches: Vec<Branch>,
}

/// One of the prompts that `AND` composes.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    /// How much it counts: the guidance towards it is multiplied by this.
    pub weight: f64,
    /// The different texts that it is in the course of the steps; at least one.
    pub texts: Vec<Vec<Piece>>,
    /// Each step's place in `texts`.
    pub of_step: Vec<usize>,
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq)]
pub enum Piece {
    /// Words, and how much their tokens weigh.
    Words {
        /// As they go to the tokenizer.
        text: String,
        /// 1 leaves them as they are.
        weight: f64,
    },
    /// What follows begins a chunk of its own.
    Break,
}

/// What is wrong with a prompt, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at column {column}: {problem}")]
pub struct PromptError {
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// A character and its column, so that a fault has an address wherever editing has moved it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Placed {
    character: char,
    column: usize,
}

impl Prompt {
    /// The text as it is.
    pub fn plain(text: &str) -> Self {
        let words = Piece::Words { text: text.to_owned(), weight: 1.0 };
        Self { branches: vec![Branch { weight: 1.0, texts: vec![vec![words]], of_step: Vec::new() }] }
    }

    /// Parses a prompt to be painted in `steps` steps.
    ///
    /// # Errors
    /// The first fault, by its column.
    pub fn parse(text: &str, steps: u32) -> Result<Self, PromptError> {
        let branches = split(&placed(text))?.into_iter().map(|(text, weight)| Unweighed::parse(&text, weight, steps));
        Self::weighed(&branches.collect::<Result<Vec<_>, _>>()?)
    }

    /// Parses a negative prompt, which is one branch: in it `AND` is a word, as in AUTOMATIC1111.
    ///
    /// # Errors
    /// The first fault, by its column.
    pub fn parse_negative(text: &str, steps: u32) -> Result<Self, PromptError> {
        Self::weighed(&[Unweighed::parse(&placed(text), 1.0, steps)?])
    }

    /// Reads the weights once it is known that there is not too much to read.
    fn weighed(branches: &[Unweighed]) -> Result<Self, PromptError> {
        let texts: usize = branches.iter().map(|branch| branch.texts.len()).sum();
        let longest = branches.iter().flat_map(|branch| &branch.texts).map(Vec::len).max().unwrap_or_default();
        let refuse = |problem| Err(PromptError { column: 1, problem });
        if texts > MAX_TEXTS {
            return refuse(format!("editing and alternation make {texts} different texts of it; {MAX_TEXTS} are allowed"));
        }
        if texts > 1 && texts * longest > MAX_CHARACTERS {
            return refuse(format!(
                "editing, alternation and AND make {texts} texts of up to {longest} characters of it; {MAX_CHARACTERS} are allowed together"
            ));
        }
        Ok(Self { branches: branches.iter().map(Unweighed::weigh).collect::<Result<_, _>>()? })
    }
}

/// A branch whose texts have not been read for weights.
struct Unweighed {
    weight: f64,
    texts: Vec<Vec<Placed>>,
    of_step: Vec<usize>,
}

impl Unweighed {
    fn parse(text: &[Placed], weight: f64, steps: u32) -> Result<Self, PromptError> {
        let (texts, of_step) = Edited::parse(text)?.texts(steps);
        Ok(Self { weight, texts, of_step })
    }

    fn weigh(&self) -> Result<Branch, PromptError> {
        let texts = self.texts.iter().map(|text| weigh(text)).collect::<Result<_, _>>()?;
        Ok(Branch { weight: self.weight, texts, of_step: self.of_step.clone() })
    }
}

impl Branch {
    /// Its place in `texts` at step `step`, from 0.
    pub fn text_at(&self, step: usize) -> usize {
        self.of_step.get(step).copied().unwrap_or_default()
    }
}

fn placed(text: &str) -> Vec<Placed> {
    (1..).zip(text.chars()).map(|(column, character)| Placed { character, column }).collect()
}

fn text_of(characters: &[Placed]) -> String {
    characters.iter().map(|placed| placed.character).collect()
}

/// Whether the characters before and after `at..end` leave what is between them a word: a regular expression's `\b…\b`.
fn is_word(text: &[Placed], at: usize, end: usize) -> bool {
    let joins =
        |placed: Option<&Placed>| placed.is_some_and(|placed| placed.character.is_alphanumeric() || placed.character == '_');
    !joins(at.checked_sub(1).and_then(|before| text.get(before))) && !joins(text.get(end))
}

/// Where the word stands in the text, from `start` on.
fn find_word(text: &[Placed], start: usize, word: &str) -> Option<usize> {
    let length = word.chars().count();
    let found = |at: &usize| {
        let here = text[*at..].iter().map(|placed| placed.character);
        here.take(length).eq(word.chars()) && is_word(text, *at, at + length)
    };
    (start..text.len()).find(found)
}

fn trimmed_end(text: &[Placed]) -> &[Placed] {
    let length = text.iter().rposition(|placed| !placed.character.is_whitespace()).map_or(0, |last| last + 1);
    &text[..length]
}

fn trimmed(text: &[Placed]) -> &[Placed] {
    let text = trimmed_end(text);
    let start = text.iter().position(|placed| !placed.character.is_whitespace()).unwrap_or(text.len());
    &text[start..]
}

#[cfg(test)]
mod tests;
