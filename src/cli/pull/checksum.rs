//! The hub's checksums: SHA-256 of large files, and git's own SHA-1 of the others.

use std::{
    fs::File,
    io::{self, Read, Seek},
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// How much of a file is in memory while it is checked, in bytes.
const BLOCK_BYTES: usize = 1 << 20;

/// 40 or 64 hexadecimal digits, and so a plain file name.
pub(super) struct Checksum(String);

impl Checksum {
    /// The one that an ETag holds, if it holds one that can be checked.
    pub(super) fn of_etag(etag: &str) -> Option<Self> {
        let text = etag.trim().trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        let is_known = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_known.then_some(Self(text))
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// Reads the file from its beginning.
    ///
    /// # Errors
    /// Says so when it is another file.
    pub(super) fn check(&self, file: &mut File) -> io::Result<Result<(), String>> {
        file.rewind()?;
        let found = match self.0.len() {
            64 => hash::<Sha256>(file, "")?,
            _ => {
                let head = format!("blob {}\0", file.metadata()?.len());
                hash::<Sha1>(file, &head)?
            }
        };
        Ok(if found == self.0 { Ok(()) } else { Err(format!("its checksum is {found}, and should be {}", self.0)) })
    }
}

fn hash<D: Digest>(file: &mut File, head: &str) -> io::Result<String> {
    let (mut digest, mut block) = (D::new_with_prefix(head), vec![0; BLOCK_BYTES]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            bytes => digest.update(&block[..bytes]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn only_hexadecimal_digits_of_a_known_length_are_a_checksum() {
        let sha1 = "A".repeat(40);
        assert_eq!(Checksum::of_etag(&format!("W/\"{sha1}\"")).unwrap().name(), "a".repeat(40));
        for wrong in ["", "\"\"", "abc", "/etc/passwd", &format!("../{}", "a".repeat(37)), &"g".repeat(64), &"é".repeat(20)] {
            assert!(Checksum::of_etag(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_file_has_the_checksums_of_sha256sum_and_of_git() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"what is up, doc?").unwrap();
        // `git hash-object`, from the book Pro Git, and `sha256sum`.
        for known in ["bd9dbf5aae1a3862dd1526723246b20206e5fc37", SHA256] {
            Checksum::of_etag(known).unwrap().check(&mut file).unwrap().unwrap();
        }
        let problem = Checksum::of_etag(&"0".repeat(40)).unwrap().check(&mut file).unwrap().unwrap_err();
        assert!(problem.contains("bd9dbf5a"), "{problem}");
    }

    const SHA256: &str = "af4e812d13b4eae6da91024f15f7679dae49d40aee3fb4c7216b56d04193f46c";
}
