//! Reads the query of an address strictly: a parameter that nobody knows is a mistake that its sender should hear of.

use serde::Serialize;
use url::form_urlencoded;

use super::error::ApiError;

/// The most wrong parameters that are named one by one, so that an answer stays short whatever was sent.
const MAX_NAMED: usize = 20;
/// How much of a stranger's text is said back, in characters.
const MAX_SHOWN: usize = 64;

/// One bad parameter of a query: its name and what is allowed there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{parameter}: {detail}")]
pub(super) struct ParameterError {
    parameter: String,
    detail: String,
}

impl ParameterError {
    /// An error at the parameter `name`.
    pub(super) fn at(name: &str, detail: impl Into<String>) -> Self {
        Self { parameter: shown(name), detail: detail.into() }
    }
}

/// The parameters that have not been read yet, and the errors found so far.
pub(super) struct Query {
    unread: Vec<(String, String)>,
    known: Vec<&'static str>,
    errors: Vec<ParameterError>,
}

impl Query {
    /// The parameters of a request's query.
    pub(super) fn new(query: Option<&str>) -> Self {
        let unread = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
        Self { unread, known: Vec::new(), errors: Vec::new() }
    }

    /// Takes the parameter and parses it. `None` when it is absent or wrong; what is wrong is remembered.
    pub(super) fn take<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.known.push(name);
        let values: Vec<String> = self.unread.extract_if(.., |(given, _)| given == name).map(|(_, value)| value).collect();
        match values.as_slice() {
            [] => None,
            [value] => parse(value).map_err(|detail| self.errors.push(ParameterError::at(name, detail))).ok(),
            several => {
                self.errors.push(ParameterError::at(name, format!("must be given once, was given {} times", several.len())));
                None
            }
        }
    }

    /// What has been parsed, unless any parameter was wrong or nobody asked for it.
    pub(super) fn finish<T>(mut self, parsed: T) -> Result<T, ApiError> {
        let known = self.known.join(", ");
        let unknown = |(name, _): &(String, String)| ParameterError::at(name, format!("unknown parameter; there is {known}"));
        self.errors.extend(self.unread.iter().take(MAX_NAMED).map(unknown));
        if self.errors.is_empty() { Ok(parsed) } else { Err(ApiError::InvalidParameters(self.errors)) }
    }
}

/// Parses a whole number from `min` to `max`.
pub(super) fn integer(min: u32, max: u32) -> impl Fn(&str) -> Result<u32, String> {
    move |text| {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_plain && (min..=max).contains(number));
        number.ok_or_else(|| format!("must be a whole number from {min} to {max}, got {:?}", shown(text)))
    }
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The errors of a query of which `width` and `limit` are known, both from 16 to 2048.
    fn errors_of(query: &str) -> Vec<(String, String)> {
        let mut query = Query::new(Some(query));
        let parsed = (query.take("width", integer(16, 2048)), query.take("limit", integer(16, 2048)));
        match query.finish(parsed) {
            Ok(_) => Vec::new(),
            Err(ApiError::InvalidParameters(errors)) => errors.into_iter().map(|error| (error.parameter, error.detail)).collect(),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn parameters_are_decoded_and_absent_ones_are_none() {
        let mut query = Query::new(Some("width=%31%36&"));
        assert_eq!((query.take("width", integer(16, 2048)), query.take("limit", integer(0, 1))), (Some(16), None));
        assert!(query.finish(()).is_ok() && Query::new(None).finish(()).is_ok());
    }

    #[test]
    fn every_bad_parameter_is_named_at_once() {
        let named: Vec<String> = errors_of("height=3&limit=x&width=15").into_iter().map(|(name, _)| name).collect();
        assert_eq!(named, ["width", "limit", "height"]);
        assert_eq!(errors_of("height=3")[0].1, "unknown parameter; there is width, limit");
    }

    #[test]
    fn a_parameter_given_twice_is_refused_even_when_both_agree() {
        assert_eq!(errors_of("width=16&width=16")[0].1, "must be given once, was given 2 times");
    }

    #[test]
    fn only_plain_digits_in_range_are_a_number() {
        for bad in ["15", "2049", "", "+16", "-16", "16.0", "1e2", " 16", "99999999999999999999", "١٦"] {
            assert!(errors_of(&format!("width={}", bad.replace('+', "%2B"))).len() == 1, "{bad}");
        }
    }

    #[test]
    fn a_thousand_unknown_parameters_make_a_short_answer() {
        let query: Vec<String> = (0..1000).map(|number| format!("{number}{}=1", "x".repeat(1000))).collect();
        let errors = errors_of(&query.join("&"));
        assert!(errors.len() == MAX_NAMED && errors.iter().all(|(name, _)| name.len() == MAX_SHOWN));
    }
}
