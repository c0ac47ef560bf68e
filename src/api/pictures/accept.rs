//! Chooses a picture's format by the `Accept` header (RFC 9110, 12.5.1).

use axum::http::{HeaderMap, header};

use crate::{api::error::ApiError, domain::PictureFormat};

/// The formats in the order in which they are chosen when a client wants several equally: WebP is the smallest, PNG loses nothing.
const ORDER: [PictureFormat; 3] = [PictureFormat::WebP, PictureFormat::Png, PictureFormat::Jpeg];

/// The format that the client wants most. The stored one needs no work and wins ties.
pub(super) fn choose(headers: &HeaderMap, stored: PictureFormat) -> Result<PictureFormat, ApiError> {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return Ok(stored);
    }
    // Of equals the last is the greatest.
    let candidates = [stored].into_iter().chain(ORDER).rev();
    let best = candidates.map(|format| (weight(&ranges, format), format)).max_by_key(|(weight, _)| *weight);
    best.filter(|(weight, _)| *weight > 0).map(|(_, format)| format).ok_or(ApiError::NotAcceptable)
}

/// One element of the header.
struct MediaRange {
    /// In lower case.
    name: String,
    /// In thousandths.
    weight: u16,
}

/// Every element that can be understood. A header of which nothing can is like none.
fn ranges(headers: &HeaderMap) -> Vec<MediaRange> {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(MediaRange::parse).collect()
}

impl MediaRange {
    fn parse(element: &str) -> Option<Self> {
        let mut parts = element.split(';').map(str::trim);
        let name = parts.next().filter(|name| name.contains('/'))?.to_ascii_lowercase();
        let quality = parts.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
        });
        Some(Self { name, weight: quality.map_or(Some(1000), thousandths)? })
    }

    /// How closely the range names a format: by name, as a picture, as anything; `None` when it does not.
    fn closeness(&self, format: PictureFormat) -> Option<u8> {
        match self.name.as_str() {
            "*/*" => Some(0),
            "image/*" => Some(1),
            name => (name == format.media_type()).then_some(2),
        }
    }
}

fn thousandths(quality: &str) -> Option<u16> {
    let quality: f32 = quality.parse().ok()?;
    (0.0..=1.0).contains(&quality).then(|| (quality * 1000.0).round() as u16)
}

/// How much the client wants a format: what the range that names it most closely says.
fn weight(ranges: &[MediaRange], format: PictureFormat) -> u16 {
    let matching = ranges.iter().filter_map(|range| Some((range.closeness(format)?, range.weight)));
    matching.max().map_or(0, |(_, weight)| weight)
}

#[cfg(test)]
mod tests {
    use PictureFormat::{Jpeg, Png, WebP};

    use super::*;

    /// What is chosen of a stored PNG, and of a stored JPEG.
    fn chosen(accept: &str) -> (Option<PictureFormat>, Option<PictureFormat>) {
        let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
        (choose(&headers, Png).ok(), choose(&headers, Jpeg).ok())
    }

    #[test]
    fn without_the_header_or_without_sense_in_it_the_stored_format_is_the_answer() {
        assert_eq!(choose(&HeaderMap::new(), WebP).ok(), Some(WebP));
        for accept in ["", ",", "png", "image/webp;q=high", "image/webp;q=1.5", "image/webp;q=NaN"] {
            assert_eq!(chosen(accept), (Some(Png), Some(Jpeg)), "{accept}");
        }
    }

    #[test]
    fn the_format_of_the_greatest_weight_wins_and_the_stored_one_wins_ties() {
        assert_eq!(chosen("image/jpeg;q=0.5, image/webp;q=0.501"), (Some(WebP), Some(WebP)));
        assert_eq!(chosen("IMAGE/WebP ; Q=0.9 , image/jpeg"), (Some(Jpeg), Some(Jpeg)));
        assert_eq!(chosen("image/webp, image/png, image/jpeg"), (Some(Png), Some(Jpeg)));
        assert_eq!(chosen("image/*"), (Some(Png), Some(Jpeg)));
        assert_eq!(chosen("image/webp, image/png"), (Some(Png), Some(WebP)));
    }

    #[test]
    fn the_closest_range_counts_whatever_stands_first() {
        assert_eq!(chosen("image/png;q=0, */*"), (Some(WebP), Some(Jpeg)));
        assert_eq!(chosen("*/*;q=0.9, image/*;q=0.2, image/png;q=0.3"), (Some(Png), Some(Png)));
        assert_eq!(chosen("image/*;q=0, */*"), (None, None));
    }

    #[test]
    fn nothing_that_there_is_may_be_acceptable() {
        for accept in ["image/avif", "application/json, text/html", "image/*;q=0", "*/*;q=0.000"] {
            assert_eq!(chosen(accept), (None, None), "{accept}");
        }
    }

    #[test]
    fn browsers_get_what_they_ask_for() {
        let chrome = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8";
        assert_eq!(chosen(chrome), (Some(Png), Some(Jpeg)));
        let firefox = "image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5";
        assert_eq!(chosen(firefox), (Some(Png), Some(WebP)));
        let old_java = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2";
        assert_eq!(chosen(old_java), (Some(Jpeg), Some(Jpeg)));
    }
}
