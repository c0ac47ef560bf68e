//! What a hub says about a file before it is fetched. All of it is checked here, once, and nothing that it says later is believed instead.

use super::{checksum::Checksum, http::Answer};

/// A file's checksum and its length in bytes.
pub(super) struct Metadata {
    pub(super) checksum: Checksum,
    pub(super) size: u64,
}

impl Metadata {
    /// Reads the answer to a request for a file's first byte.
    pub(super) fn read(answer: &Answer, commit: &str) -> Result<Self, String> {
        if let Some(other) = answer.first_header("x-repo-commit").filter(|other| *other != commit) {
            return Err(format!("the hub answers with the commit {other:?}, and {commit} was asked for"));
        }
        let etag =
            answer.first_header("x-linked-etag").or_else(|| answer.header("etag")).ok_or("the hub gives no checksum (ETag)")?;
        let checksum = Checksum::of_etag(etag).ok_or_else(|| format!("the hub's ETag {etag:?} is not a checksum"))?;
        let (_, size) = extent(answer)?;
        match answer.first_header("x-linked-size") {
            Some(linked) if linked.parse() != Ok(size) => Err(format!("the hub says {linked:?} bytes, and {size} are there")),
            _ => Ok(Self { checksum, size }),
        }
    }
}

/// Which byte an answer's body begins with, and how many the file has.
pub(super) fn extent(answer: &Answer) -> Result<(u64, u64), String> {
    let (place, found) = match answer.status() {
        206 => ("Content-Range", answer.header("content-range").and_then(range)),
        // The whole file, whatever was asked for.
        _ => ("Content-Length", answer.header("content-length").and_then(|length| Some((0, length.parse().ok()?)))),
    };
    found.ok_or_else(|| format!("the hub does not say which bytes it sends ({place})"))
}

/// `bytes FIRST-LAST/SIZE`.
fn range(text: &str) -> Option<(u64, u64)> {
    let (bytes, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, size) = (bytes.split_once('-')?.0.parse().ok()?, size.parse().ok()?);
    (first < size).then_some((first, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_lies_in_its_file() {
        assert_eq!(range("bytes 5-9/10"), Some((5, 10)));
        for wrong in ["", "bytes", "bytes 5-9/*", "bytes 10-10/10", "5-9/10", "bytes -9/10", "bytes 5-9/99999999999999999999"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }
}
