//! Takes the parameters of an address one by one and gathers everything that is wrong with them.

use serde::Serialize;
use url::form_urlencoded;

use super::error::ApiError;

/// The most unknown parameters that are named one by one, so that an answer stays short whatever was sent.
const MAX_UNKNOWN_NAMED: usize = 10;
/// The longest part of a name or value that is repeated in an answer.
const MAX_SHOWN_CHARS: usize = 64;

/// One bad parameter of an address, or one bad header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ParameterError {
    /// Its name.
    pub(super) parameter: String,
    /// What is allowed and what came, for a person to read.
    pub(super) detail: String,
}

impl ParameterError {
    pub(super) fn new(parameter: &str, detail: impl Into<String>) -> Self {
        Self { parameter: parameter.chars().take(MAX_SHOWN_CHARS).collect(), detail: detail.into() }
    }
}

/// The parameters behind an address's `?` that have not been read yet, and the errors found so far.
#[derive(Debug)]
pub(super) struct Query {
    unread: Vec<(String, String)>,
    known: Vec<&'static str>,
    errors: Vec<ParameterError>,
}

impl Query {
    /// Reads what stands behind the `?`.
    pub(super) fn new(query: Option<&str>) -> Self {
        let unread = form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
        Self { unread, known: Vec::new(), errors: Vec::new() }
    }

    /// Takes a parameter that may come once. `None` when it is absent or wrong; what is wrong is remembered.
    pub(super) fn take<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let values = self.take_all(name);
        if values.len() > 1 {
            self.errors.push(ParameterError::new(name, format!("may be given once, came {} times", values.len())));
            return None;
        }
        let value = values.first()?;
        parse(value).map_err(|detail| self.errors.push(ParameterError::new(name, detail))).ok()
    }

    /// Takes a parameter that may come any number of times, each time with one value or with several between commas.
    pub(super) fn take_list<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let values = self.take_all(name);
        let parsed: Result<Vec<T>, String> = values.iter().flat_map(|value| value.split(',')).map(parse).collect();
        parsed.unwrap_or_else(|detail| {
            self.errors.push(ParameterError::new(name, detail));
            Vec::new()
        })
    }

    fn take_all(&mut self, name: &'static str) -> Vec<String> {
        self.known.push(name);
        self.unread.extract_if(.., |(other, _)| other == name).map(|(_, value)| value).collect()
    }

    /// The end of the parameters: an error when any was wrong or nobody has asked for it.
    pub(super) fn finish(mut self) -> Result<(), ApiError> {
        let known = if self.known.is_empty() { "there are none here".to_owned() } else { self.known.join(", ") };
        let mut unknown: Vec<String> = self.unread.into_iter().map(|(name, _)| name).collect();
        unknown.dedup();
        let named = unknown.iter().take(MAX_UNKNOWN_NAMED);
        self.errors.extend(named.map(|name| ParameterError::new(name, format!("unknown parameter; the parameters are {known}"))));
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::InvalidParameters(self.errors)) }
    }
}

/// Parses a whole number from `min` to `max`, written in digits only.
pub(super) fn whole_number(min: u32, max: u32) -> impl Fn(&str) -> Result<u32, String> {
    move |text| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && (min..=max).contains(number));
        number.ok_or_else(|| format!("must be a whole number from {min} to {max}, got {}", shown(text)))
    }
}

/// A value as it can stand in an answer.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(MAX_SHOWN_CHARS).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(query: Query) -> Vec<(String, String)> {
        let Err(ApiError::InvalidParameters(errors)) = query.finish() else { panic!("nothing was wrong") };
        errors.into_iter().map(|error| (error.parameter, error.detail)).collect()
    }

    #[test]
    fn every_bad_parameter_is_reported_at_once() {
        let mut query = Query::new(Some("width=1&height=%C3%A4&width=2&wdith=3"));
        assert_eq!(query.take("width", whole_number(1, 9)), None);
        assert_eq!(query.take("height", whole_number(1, 9)), None);
        let found = problems(query);
        assert_eq!(found[0], ("width".to_owned(), "may be given once, came 2 times".to_owned()));
        assert_eq!(found[1], ("height".to_owned(), "must be a whole number from 1 to 9, got \"ä\"".to_owned()));
        assert_eq!(found[2], ("wdith".to_owned(), "unknown parameter; the parameters are width, height".to_owned()));
    }

    #[test]
    fn a_list_comes_repeated_or_between_commas() {
        let mut query = Query::new(Some("n=1,2&n=3"));
        assert_eq!(query.take_list("n", whole_number(1, 9)), [1, 2, 3]);
        assert!(query.finish().is_ok());
    }

    #[test]
    fn numbers_have_one_spelling() {
        for bad in ["", "+1", "-1", "1.0", " 1", "10", "99999999999999999999"] {
            assert!(whole_number(1, 9)(bad).is_err(), "{bad:?}");
        }
    }
}
