//! What can go wrong between a hub and this machine, and what the user can do about it.

use std::{io, thread, time::Duration};

use crate::cli::CliError;

/// How often what may pass is tried again at once.
const RETRIES: u32 = 3;
/// How long to wait before the first of them; twice as long before each other.
const PAUSE: Duration = Duration::from_millis(300);

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// A connection that could not be made or was cut off.
    Passing(String),
    /// The hub's status, neither success nor a redirect.
    Status(u16),
    /// What is wrong the next time, too.
    Lasting(String),
}

impl Trouble {
    /// What the user can do about it; `what` is the file or the model at fault.
    pub(super) fn explain(self, what: &str) -> CliError {
        CliError::failed(match self {
            Self::Status(401 | 403) => {
                format!(
                    "{what}: the hub does not let you have it: accept its terms on its page and set HF_TOKEN, or check the name"
                )
            }
            Self::Status(404) => format!("{what}: not on the hub, or not at this revision"),
            Self::Status(status) => format!("{what}: the hub answers with status {status}"),
            Self::Passing(problem) | Self::Lasting(problem) => format!("{what}: {problem}"),
        })
    }

    fn may_pass(&self) -> bool {
        matches!(self, Self::Passing(_) | Self::Status(408 | 429 | 500..))
    }
}

/// Trouble with a file of this machine.
pub(super) fn local(error: &io::Error) -> Trouble {
    Trouble::Lasting(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "the disk is full; make room and pull again, it goes on where it ended".to_owned()
        }
        _ => error.to_string(),
    })
}

/// Does it again while it may go well after all.
pub(super) fn patiently<T>(mut act: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
    for retry in 0..RETRIES {
        match act() {
            Err(trouble) if trouble.may_pass() => thread::sleep(PAUSE * 2_u32.pow(retry)),
            done => return done,
        }
    }
    act()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let mut lasting = [Err(Trouble::Status(404)), Ok(())].into_iter();
        assert!(patiently(|| lasting.next().unwrap()).is_err());
        let mut passing = [Err(Trouble::Status(503)), Err(Trouble::Passing("cut off".to_owned())), Ok(7)].into_iter();
        assert_eq!(patiently(|| passing.next().unwrap()).unwrap(), 7);
    }

    #[test]
    fn a_full_disk_is_called_one() {
        let full = local(&io::Error::from(io::ErrorKind::StorageFull)).explain("unet/model");
        assert!(full.to_string().contains("unet/model: the disk is full"), "{full}");
    }
}
