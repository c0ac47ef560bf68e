//! Editing `[from:to:when]` and alternation `[a|b]`: what the text is at each step.

use super::{MAX_NESTING, Placed, PromptError, text_of, trimmed};

/// A branch as a tree of what editing leaves alone and what it changes.
#[derive(Debug)]
pub(super) struct Edited {
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Text(Placed),
    /// `[before:after:when]`
    Scheduled {
        before: Vec<Self>,
        after: Vec<Self>,
        when: When,
    },
    /// `[a|b|…]`
    Alternating(Vec<Vec<Self>>),
}

/// Up to which step the text before an edit stays.
#[derive(Debug, Clone, Copy)]
enum When {
    /// Of the steps: written with a point.
    Fraction(f64),
    /// Written without.
    Step(f64),
}

/// A bracket that is open, and what it holds so far.
struct Frame {
    open: Placed,
    /// What is between the separators; one more than there are of those.
    parts: Vec<Vec<Node>>,
    separators: Vec<Placed>,
}

impl Edited {
    /// Reads a branch.
    ///
    /// # Errors
    /// A `when` out of range, or brackets that are too deep.
    pub(super) fn parse(text: &[Placed]) -> Result<Self, PromptError> {
        let whole = || Ok(Self { nodes: text.iter().copied().map(Node::Text).collect() });
        let mut reader = Reader::default();
        let mut characters = text.iter().copied();
        while let Some(placed) = characters.next() {
            match placed.character {
                '\\' => match characters.next() {
                    Some(escaped) if escaped.character != '\n' => reader.push([placed, escaped].map(Node::Text)),
                    // AUTOMATIC1111's grammar has no word for it, and then takes the whole as text.
                    _ => return whole(),
                },
                '(' | '[' => reader.open(placed)?,
                ')' | ']' => reader.close(placed)?,
                ':' | '|' => reader.separate(placed),
                _ => reader.push([Node::Text(placed)]),
            }
        }
        reader.literally();
        // Nor has it one for a bar outside of an alternation.
        if reader.has_stray_bar { whole() } else { Ok(Self { nodes: reader.nodes }) }
    }

    /// The different texts in the course of `steps` steps, and each step's place among them.
    ///
    /// As in AUTOMATIC1111, an entry of its schedule holds for the steps counted from 0 up to and with the one that it is named by, so that
    /// the first text stays one step longer than its number says.
    pub(super) fn texts(&self, steps: u32) -> (Vec<Vec<Placed>>, Vec<usize>) {
        let mut ends = vec![steps];
        collect_ends(&self.nodes, steps, &mut ends);
        ends.sort_unstable();
        ends.dedup();
        let (mut texts, mut entries) = (Vec::<Vec<Placed>>::new(), Vec::new());
        for &end in &ends {
            let mut text = Vec::new();
            write(&self.nodes, (end, steps), &mut text);
            let place = texts.iter().position(|other| *other == text).unwrap_or_else(|| {
                texts.push(text);
                texts.len() - 1
            });
            entries.push(place);
        }
        let entry = |step: u32| ends.iter().position(|&end| step <= end).map_or(0, |index| entries[index]);
        (texts, (0..steps).map(entry).collect())
    }
}

/// Builds the tree in one pass.
#[derive(Default)]
struct Reader {
    nodes: Vec<Node>,
    frames: Vec<Frame>,
    has_stray_bar: bool,
}

impl Reader {
    fn push(&mut self, nodes: impl IntoIterator<Item = Node>) {
        let place = self.frames.last_mut().and_then(|frame| frame.parts.last_mut()).unwrap_or(&mut self.nodes);
        place.extend(nodes);
    }

    fn open(&mut self, open: Placed) -> Result<(), PromptError> {
        if self.frames.len() == MAX_NESTING {
            let problem = format!("brackets are nested more than {MAX_NESTING} deep; write \\{} for the character", open.character);
            return Err(PromptError { column: open.column, problem });
        }
        self.frames.push(Frame { open, parts: vec![Vec::new()], separators: Vec::new() });
        Ok(())
    }

    fn separate(&mut self, separator: Placed) {
        match self.frames.last_mut() {
            Some(frame) => {
                frame.separators.push(separator);
                frame.parts.push(Vec::new());
            }
            None => self.push_stray(separator),
        }
    }

    fn push_stray(&mut self, separator: Placed) {
        self.has_stray_bar |= separator.character == '|';
        self.nodes.push(Node::Text(separator));
    }

    /// Closes the last bracket if it is this one's partner and what it holds means something; else it and all brackets around it are text.
    fn close(&mut self, close: Placed) -> Result<(), PromptError> {
        let partner = if close.character == ')' { '(' } else { '[' };
        if let Some(frame) = self.frames.pop_if(|frame| frame.open.character == partner && frame.means_something()) {
            let nodes = frame.close(close)?;
            self.push(nodes);
        } else {
            self.literally();
            self.nodes.push(Node::Text(close));
        }
        Ok(())
    }

    /// Nothing that is still open can mean anything: it is text, though not the edits within it.
    fn literally(&mut self) {
        for frame in std::mem::take(&mut self.frames) {
            self.nodes.push(Node::Text(frame.open));
            let mut separators = frame.separators.into_iter();
            for part in frame.parts {
                self.nodes.extend(part);
                separators.next().into_iter().for_each(|separator| self.push_stray(separator));
            }
        }
    }
}

impl Frame {
    fn counts(&self) -> (usize, usize) {
        let bars = self.separators.iter().filter(|separator| separator.character == '|').count();
        (self.separators.len() - bars, bars)
    }

    fn means_something(&self) -> bool {
        match (self.open.character, self.counts()) {
            (_, (0, 0)) | ('(', (1, 0)) => true,
            ('[', (0, bars)) => bars > 0,
            ('[', (1 | 2, 0)) => self.when().is_some(),
            _ => false,
        }
    }

    fn when(&self) -> Option<(When, Placed)> {
        let number = self.parts.last()?.iter().map(|node| match node {
            Node::Text(placed) => Some(*placed),
            _ => None,
        });
        let number = number.collect::<Option<Vec<Placed>>>()?;
        let number = trimmed(&number);
        Some((When::parse(&text_of(number))?, *number.first()?))
    }

    /// What the bracket stands for, which is only asked of one that means something.
    fn close(mut self, close: Placed) -> Result<Vec<Node>, PromptError> {
        match (self.open.character, self.counts()) {
            ('[', (0, bars)) if bars > 0 => Ok(vec![Node::Alternating(self.parts)]),
            ('[', (1 | 2, 0)) => {
                let Some((when, number)) = self.when() else { return Ok(Vec::new()) };
                let when = when.checked(number)?;
                self.parts.pop();
                let after = self.parts.pop().unwrap_or_default();
                Ok(vec![Node::Scheduled { before: self.parts.pop().unwrap_or_default(), after, when }])
            }
            _ => Ok(self.emphasis(close)),
        }
    }

    /// Brackets that weigh stay for those who read weights.
    fn emphasis(self, close: Placed) -> Vec<Node> {
        let mut nodes = vec![Node::Text(self.open)];
        let mut separators = self.separators.into_iter();
        for part in self.parts {
            nodes.extend(part);
            nodes.extend(separators.next().map(Node::Text));
        }
        nodes.push(Node::Text(close));
        nodes
    }
}

impl When {
    /// A decimal number, perhaps with an exponent, and nothing else that Rust would take for one.
    fn parse(text: &str) -> Option<Self> {
        let is_number = text.chars().all(|character| character.is_ascii_digit() || ".+-eE".contains(character));
        let number: f64 = if is_number { text.parse().ok()? } else { return None };
        Some(if text.contains('.') { Self::Fraction(number) } else { Self::Step(number) })
    }

    fn checked(self, number: Placed) -> Result<Self, PromptError> {
        let problem = match self {
            Self::Fraction(fraction) if !(0.0..=1.0).contains(&fraction) => {
                format!("a number with a point is a fraction of the steps, from 0.0 to 1.0, got {fraction}")
            }
            Self::Step(step) if step < 0.0 => format!("a number without a point is a step, from 0, got {step}"),
            _ => return Ok(self),
        };
        Err(PromptError { column: number.column, problem })
    }

    /// The last step, from 1, of the text before; at most `steps`.
    fn step(self, steps: u32) -> u32 {
        let step = match self {
            Self::Fraction(fraction) => fraction * f64::from(steps),
            Self::Step(step) => step,
        };
        (step as u32).min(steps)
    }
}

/// The steps at which the text may change.
fn collect_ends(nodes: &[Node], steps: u32, ends: &mut Vec<u32>) {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Scheduled { before, after, when } => {
                ends.extend(Some(when.step(steps)).filter(|&step| step > 0));
                collect_ends(before, steps, ends);
                collect_ends(after, steps, ends);
            }
            Node::Alternating(options) => {
                ends.extend(1..=steps);
                options.iter().for_each(|option| collect_ends(option, steps, ends));
            }
        }
    }
}

/// Writes the text of step `step` of `steps`, from 1.
fn write(nodes: &[Node], (step, steps): (u32, u32), text: &mut Vec<Placed>) {
    for node in nodes {
        match node {
            Node::Text(placed) => text.push(*placed),
            Node::Scheduled { before, after, when } => {
                write(if step <= when.step(steps) { before } else { after }, (step, steps), text);
            }
            Node::Alternating(options) => {
                let turn = (step as usize).saturating_sub(1) % options.len();
                write(&options[turn], (step, steps), text);
            }
        }
    }
}
