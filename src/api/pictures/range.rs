//! The part of a picture's file that a client asks for (RFC 9110, 14).

use std::ops::Range;

use axum::http::{HeaderMap, header};
use headers::{ETag, HeaderMapExt, IfRange};

use crate::api::error::ApiError;

/// One range of bytes, as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// From the first byte on, through the last if there is one.
    From(u64, Option<u64>),
    /// The last so many.
    Last(u64),
}

/// The part of the `length` bytes of the file `etag` that is asked for; `None` is the whole: nothing else was asked for, or what was is
/// no single range of bytes, or belongs to another file.
///
/// # Errors
/// When the file has nothing of the range.
pub(super) fn asked(headers: &HeaderMap, etag: &ETag, length: usize) -> Result<Option<Range<usize>>, ApiError> {
    match single_range(headers) {
        Some(range) if is_of(headers, etag) => {
            range.within(length as u64).map(Some).ok_or(ApiError::RangeNotSatisfiable { length: length as u64 })
        }
        _ => Ok(None),
    }
}

/// Whether a part is of use to the client: it may say which file it has the other parts of.
fn is_of(headers: &HeaderMap, etag: &ETag) -> bool {
    match headers.typed_try_get::<IfRange>() {
        Ok(None) => true,
        Ok(Some(condition)) => !condition.is_modified(Some(etag), None),
        Err(_) => false,
    }
}

/// `headers::Range` takes no notice of a suffix that is longer than the file, so the header is read here.
fn single_range(headers: &HeaderMap) -> Option<Asked> {
    let mut lines = headers.get_all(header::RANGE).iter();
    let line = lines.next()?.to_str().ok()?;
    let (unit, range) = line.split_once('=')?;
    if lines.next().is_some() || !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    Asked::parse(range.trim())
}

impl Asked {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        match (first, last) {
            ("", last) => Some(Self::Last(number(last)?)),
            (first, "") => Some(Self::From(number(first)?, None)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// What the file has of it.
    fn within(self, length: u64) -> Option<Range<usize>> {
        let (start, end) = match self {
            Self::From(first, last) => (first, last.map_or(length, |last| length.min(last.saturating_add(1)))),
            Self::Last(count) => (length.saturating_sub(count), length),
        };
        let place = |place: u64| usize::try_from(place).ok();
        (start < end).then_some(place(start)?..place(end)?)
    }
}

/// Digits only; more than fit are as many as fit.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(range: &str) -> Result<Option<Range<usize>>, ApiError> {
        let headers = HeaderMap::from_iter([(header::RANGE, range.parse().unwrap())]);
        asked(&headers, &"\"a\"".parse().unwrap(), 100)
    }

    #[test]
    fn a_range_is_cut_to_what_the_file_has() {
        for (range, part_of_file) in [
            ("bytes=0-0", 0..1),
            ("bytes=10-19", 10..20),
            ("bytes=90-", 90..100),
            ("bytes=90-1000", 90..100),
            ("bytes=-10", 90..100),
            ("bytes=-1000", 0..100),
            ("Bytes = 0-99999999999999999999999", 0..100),
        ] {
            assert_eq!(part(range).unwrap(), Some(part_of_file), "{range}");
        }
    }

    #[test]
    fn what_is_no_single_range_of_bytes_is_the_whole() {
        let bad = ["bytes=", "bytes=-", "bytes=a-b", "bytes=9-0", "bytes=+1-2", "lines=0-1", "bytes 0-1", "bytes=0-0,2-3", "0-1"];
        for range in bad {
            assert_eq!(part(range).unwrap(), None, "{range}");
        }
    }

    #[test]
    fn a_range_behind_the_end_is_an_error() {
        for range in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=99999999999999999999999-"] {
            assert!(matches!(part(range), Err(ApiError::RangeNotSatisfiable { length: 100 })), "{range}");
        }
    }
}
