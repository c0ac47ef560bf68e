//! Weights: `(a)`, `[a]`, `(a:1.3)`, and `BREAK`.

use super::{MAX_NESTING, MAX_WEIGHT, Piece, Placed, PromptError, find_word, text_of, trimmed, trimmed_end};

/// What round brackets multiply by, and square ones divide by.
const STEP: f64 = 1.1;

/// Reads one text; AUTOMATIC1111's `parse_prompt_attention`. What it gives is never empty, and neighbours of one weight are one.
///
/// # Errors
/// A weight that is no number or out of range, or brackets that are too deep.
pub(super) fn weigh(text: &[Placed]) -> Result<Vec<Piece>, PromptError> {
    let mut reader = Reader::default();
    let mut at = 0;
    while at < text.len() {
        at += reader.take(&text[at..])?;
    }
    reader.finish()
}

#[derive(Default)]
struct Reader {
    pieces: Vec<Weighed>,
    /// Where in `pieces` each bracket was opened.
    round: Vec<usize>,
    square: Vec<usize>,
}

struct Weighed {
    kind: Kind,
    weight: f64,
    column: usize,
}

enum Kind {
    Words(String),
    Break,
}

impl Reader {
    /// Takes what the text, which is not empty, begins with; answers how many characters that was.
    fn take(&mut self, text: &[Placed]) -> Result<usize, PromptError> {
        let first = text[0];
        match first.character {
            '\\' => {
                let escaped = text.get(1).filter(|next| "()[]\\".contains(next.character));
                self.words(first.column, escaped.map(|next| next.character.to_string()).unwrap_or_default());
                return Ok(1 + usize::from(escaped.is_some()));
            }
            '(' | '[' => self.open(first)?,
            ')' if !self.round.is_empty() => multiply_from(&mut self.pieces, self.round.pop(), STEP),
            ']' if !self.square.is_empty() => multiply_from(&mut self.pieces, self.square.pop(), 1.0 / STEP),
            ':' if let Some((number, length)) = weight_at(text).filter(|_| !self.round.is_empty()) => {
                let weight = parse_weight(number)?;
                multiply_from(&mut self.pieces, self.round.pop(), weight);
                return Ok(length);
            }
            // A closing bracket without a partner, or a colon without a weight; a weight without a bracket is taken whole, for the sake of
            // the BREAKs that its spaces would be.
            ')' | ']' | ':' => {
                let length = weight_at(text).map_or(1, |(_, length)| length);
                self.run(&text[..length]);
                return Ok(length);
            }
            _ => {
                let length = text.iter().position(|placed| "\\()[]:".contains(placed.character)).unwrap_or(text.len());
                self.run(&text[..length]);
                return Ok(length);
            }
        }
        Ok(1)
    }

    fn open(&mut self, open: Placed) -> Result<(), PromptError> {
        if self.round.len() + self.square.len() == MAX_NESTING {
            let problem = format!("more than {MAX_NESTING} brackets are open; write \\{} for the character", open.character);
            return Err(PromptError { column: open.column, problem });
        }
        let stack = if open.character == '(' { &mut self.round } else { &mut self.square };
        stack.push(self.pieces.len());
        Ok(())
    }

    fn words(&mut self, column: usize, words: String) {
        self.pieces.push(Weighed { kind: Kind::Words(words), weight: 1.0, column });
    }

    /// Words, cut at every `BREAK`; the spaces around that are dropped.
    fn run(&mut self, text: &[Placed]) {
        let column = text[0].column;
        let mut rest = text;
        while let Some(at) = find_word(rest, 0, "BREAK") {
            self.words(column, text_of(trimmed_end(&rest[..at])));
            self.pieces.push(Weighed { kind: Kind::Break, weight: 1.0, column });
            rest = &rest[at + 5..];
            let start = rest.iter().position(|placed| !placed.character.is_whitespace()).unwrap_or(rest.len());
            rest = &rest[start..];
        }
        self.words(column, text_of(rest));
    }

    /// Brackets that are still open weigh all that follows them.
    fn finish(mut self) -> Result<Vec<Piece>, PromptError> {
        self.round.iter().for_each(|&from| multiply_from(&mut self.pieces, Some(from), STEP));
        self.square.iter().for_each(|&from| multiply_from(&mut self.pieces, Some(from), 1.0 / STEP));
        let mut merged: Vec<Piece> = Vec::new();
        for Weighed { kind, weight, column } in self.pieces {
            if weight.abs() > MAX_WEIGHT {
                let problem = format!("the brackets around it multiply to a weight of {weight}; at most {MAX_WEIGHT} is allowed");
                return Err(PromptError { column, problem });
            }
            match (kind, merged.last_mut()) {
                (Kind::Break, _) => merged.push(Piece::Break),
                (Kind::Words(words), Some(Piece::Words { text, weight: last })) if *last == weight => text.push_str(&words),
                (Kind::Words(text), _) => merged.push(Piece::Words { text, weight }),
            }
        }
        if merged.is_empty() {
            merged.push(Piece::Words { text: String::new(), weight: 1.0 });
        }
        Ok(merged)
    }
}

fn multiply_from(pieces: &mut [Weighed], from: Option<usize>, multiplier: f64) {
    let Some(from) = from else { return };
    pieces[from..].iter_mut().for_each(|piece| piece.weight *= multiplier);
}

/// `:number)`, with spaces around the number: the number's characters, digits and points in any order, and the length of it all.
fn weight_at(text: &[Placed]) -> Option<(&[Placed], usize)> {
    let close = text.iter().skip(1).position(|placed| !is_of_weight(placed.character))? + 1;
    let number = trimmed(&text[1..close]);
    let digits = number.iter().skip(usize::from(number.first().is_some_and(|first| "+-".contains(first.character))));
    let mut digits = digits.map(|placed| placed.character).peekable();
    let is_number = text[close].character == ')' && text[0].character == ':' && digits.peek().is_some();
    (is_number && digits.all(|character| character.is_ascii_digit() || character == '.')).then_some((number, close + 1))
}

fn is_of_weight(character: char) -> bool {
    character.is_ascii_digit() || character.is_whitespace() || ".+-".contains(character)
}

fn parse_weight(number: &[Placed]) -> Result<f64, PromptError> {
    let text = text_of(number);
    let weight = text.parse::<f64>().ok().filter(|weight| weight.abs() <= MAX_WEIGHT);
    let problem = || format!("a weight must be a number from -{MAX_WEIGHT} to {MAX_WEIGHT}, got {text:?}");
    weight.ok_or_else(|| PromptError { column: number.first().map_or(1, |first| first.column), problem: problem() })
}
