//! One file's way from the hub to this machine: in as many requests as it takes, never more bytes than were announced, and kept only when
//! its checksum is right.
//!
//! Not hf-hub's `download`: that asks for the checksum a second time and uses whatever is answered as a path, follows the hub's word on
//! where to put links, and sends the token to whom the hub redirects to.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use url::Url;

use super::{
    blob::Blob,
    http::{Answer, Client},
    metadata::{Metadata, extent},
    trouble::{Trouble, local, patiently},
};

/// How much is in memory at once, in bytes.
const BLOCK_BYTES: usize = 1 << 18;

/// How many characters of a file's name are shown.
const MAX_LABEL: usize = 30;

/// What is fetched, and from where.
pub(super) struct Transfer<'a> {
    pub(super) client: &'a Client,
    pub(super) url: Url,
    pub(super) metadata: &'a Metadata,
    pub(super) bar: ProgressBar,
}

impl Transfer<'_> {
    /// Fetches what the part lacks, and makes a blob of it.
    pub(super) fn run(&self, blob: &Blob) -> Result<(), Trouble> {
        let mut part = blob.part().map_err(|error| local(&error))?;
        self.check_room(blob, &part)?;
        patiently(|| self.go_on(&mut part))?;
        self.end_bar();
        match self.metadata.checksum.check(&mut part).map_err(|error| local(&error))? {
            Ok(()) => blob.keep(&part).map_err(|error| local(&error)),
            Err(problem) => {
                blob.discard().map_err(|error| local(&error))?;
                Err(Trouble::Lasting(format!("it came damaged: {problem}; it was removed, try again")))
            }
        }
    }

    /// Leaves the bar on a line of its own.
    fn end_bar(&self) {
        self.bar.finish();
        if !self.bar.is_hidden() {
            eprintln!();
        }
    }

    /// A full disk is best known before gigabytes are fetched.
    fn check_room(&self, blob: &Blob, part: &File) -> Result<(), Trouble> {
        let room = blob.room().map_err(|error| local(&error))?;
        let wanted = self.metadata.size.saturating_sub(part.metadata().map_err(|error| local(&error))?.len());
        if wanted <= room {
            return Ok(());
        }
        let problem =
            format!("{} are still to come, and the disk of the hub's cache has room for {}", HumanBytes(wanted), HumanBytes(room));
        Err(Trouble::Lasting(problem))
    }

    fn go_on(&self, part: &mut File) -> Result<(), Trouble> {
        let mut have = part.seek(SeekFrom::End(0)).map_err(|error| local(&error))?;
        if have > self.metadata.size {
            // No part of this file.
            have = restart(part)?;
        }
        if have < self.metadata.size {
            let answer = self.client.get(self.url.clone(), Some(&format!("{have}-")))?;
            have = self.agree(&answer, have, part)?;
            self.bar.set_position(have);
            self.bar.reset_eta();
            self.take(answer.into_reader(), self.metadata.size - have, part)?;
        }
        Ok(())
    }

    /// Where in the file the answer begins: where the part ends, or at the beginning when the hub sends all of it.
    fn agree(&self, answer: &Answer, have: u64, part: &mut File) -> Result<u64, Trouble> {
        let (first, size) = extent(answer).map_err(Trouble::Lasting)?;
        if size != self.metadata.size {
            return Err(Trouble::Lasting(format!("the hub said {} bytes, and now says {size}", self.metadata.size)));
        }
        match first {
            _ if first == have => Ok(have),
            0 => restart(part),
            _ => Err(Trouble::Lasting(format!("the hub sends byte {first}, and was asked for byte {have}"))),
        }
    }

    /// Writes exactly `wanted` bytes.
    fn take(&self, mut body: impl Read, mut wanted: u64, part: &mut File) -> Result<(), Trouble> {
        let mut block = vec![0; BLOCK_BYTES];
        while wanted > 0 {
            let room = usize::try_from(wanted).map_or(BLOCK_BYTES, |wanted| wanted.min(BLOCK_BYTES));
            let bytes = match body.read(&mut block[..room]).map_err(|error| Trouble::Passing(error.to_string()))? {
                0 => return Err(Trouble::Passing("the hub's answer ended early".to_owned())),
                bytes => bytes,
            };
            part.write_all(&block[..bytes]).map_err(|error| local(&error))?;
            wanted -= bytes as u64;
            self.bar.inc(bytes as u64);
        }
        Ok(())
    }
}

fn restart(part: &mut File) -> Result<u64, Trouble> {
    part.set_len(0).and_then(|()| part.rewind()).map_err(|error| local(&error))?;
    Ok(0)
}

/// Shows how much of a file is there; on terminals only.
pub(super) fn progress_bar(file: &str, size: u64) -> ProgressBar {
    const TEMPLATE: &str = "{msg} [{elapsed_precise}] [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} ({eta})";
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    // The end of a name tells the most.
    let hidden = file.chars().count().saturating_sub(MAX_LABEL);
    let label: String = file.chars().skip(hidden).collect();
    ProgressBar::new(size).with_style(style).with_message(if hidden > 0 { format!("..{label}") } else { label })
}
