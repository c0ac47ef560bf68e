//! `easel key`: a key for a client, and the lines of the settings that let it in.

use std::io::{Read, stdin};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;

use super::{CliError, answer::answer};
use crate::{config::key_name, domain::sha256_hex};

/// Says whose it is when one is found where it should not be.
const PREFIX: &str = "easel_";
const KEY_BYTES: usize = 32;
/// Shorter ones can be guessed; the server takes somewhat longer ones.
const MIN_OWN_BYTES: usize = 16;
const MAX_OWN_BYTES: usize = 256;

/// Whose key it is, and where it comes from.
#[derive(Debug, Args)]
#[allow(clippy::missing_docs_in_private_items, reason = "the docstrings are the help's text")]
pub(super) struct KeyArgs {
    /// The client's name in the settings and in the log
    #[arg(value_parser = key_name)]
    name: String,
    /// Take the key from standard input instead of making one
    #[arg(long)]
    stdin: bool,
    /// Let it pause and resume the queue
    #[arg(long)]
    admin: bool,
}

pub(super) fn key(arguments: &KeyArgs) -> Result<(), CliError> {
    if arguments.stdin {
        return answer(entry(arguments, &read_key(stdin())?));
    }
    let key = new_key();
    answer(format_args!("The key, shown this once; the client sends it as `Authorization: Bearer KEY`:\n\n{key}\n\n"))?;
    answer(format_args!("For the server's settings:\n\n{}", entry(arguments, &key)))
}

/// 256 random bits: nobody guesses them, so that a plain SHA-256 is enough of a hash.
fn new_key() -> String {
    PREFIX.to_owned() + &URL_SAFE_NO_PAD.encode(rand::random::<[u8; KEY_BYTES]>())
}

fn entry(KeyArgs { name, admin, .. }: &KeyArgs, key: &str) -> String {
    let sha256 = sha256_hex(key.as_bytes());
    let admin = if *admin { "admin = true\n" } else { "" };
    format!("[[auth.keys]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\n{admin}")
}

fn read_key(input: impl Read) -> Result<String, CliError> {
    let mut text = String::new();
    let limit = u64::try_from(2 * MAX_OWN_BYTES).map_err(CliError::failed)?;
    let read = input.take(limit).read_to_string(&mut text);
    let key = text.trim_ascii();
    let is_good = (MIN_OWN_BYTES..=MAX_OWN_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if read.is_err() || !is_good {
        let problem = format!("the key on standard input must be {MIN_OWN_BYTES} to {MAX_OWN_BYTES} visible ASCII characters");
        return Err(CliError::Usage(problem));
    }
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_are_alike() {
        let (one, other) = (new_key(), new_key());
        assert_eq!((one.len(), other.len()), (49, 49));
        assert!(one != other && one.starts_with(PREFIX));
    }

    #[test]
    fn a_key_of_ones_own_must_be_long_enough_and_one_word() {
        assert_eq!(read_key("  sixteen-letters!\n".as_bytes()).unwrap(), "sixteen-letters!");
        let long = "x".repeat(MAX_OWN_BYTES + 1);
        for bad in ["", "\n", "fifteen-letters", "two words and many letters", "ééééééééééééééééé", &long] {
            let problem = read_key(bad.as_bytes()).unwrap_err().to_string();
            assert!(problem.contains("16 to 256 visible ASCII"), "{bad:?}: {problem}");
        }
    }
}
