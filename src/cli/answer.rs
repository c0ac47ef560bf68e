//! What a command answers, on standard output.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write},
};

use super::CliError;

/// Prints a text as it is. A reader that has heard enough, such as `head`, is no failure; a disk that is full is.
pub(super) fn answer(text: impl Display) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CliError::failed(format!("standard output: {error}"))),
        _ => Ok(()),
    }
}
