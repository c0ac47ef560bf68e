//! Takes the fields of a JSON object one by one and gathers everything that is wrong with them.

use serde_json::{Map, Value};

use super::FieldError;

/// The most unknown fields that are named one by one, so that an answer stays short whatever was sent.
const MAX_UNKNOWN_NAMED: usize = 20;

/// The fields of a request's body that have not been read yet, and the errors found so far.
pub(super) struct Fields {
    unread: Map<String, Value>,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Fields {
    pub(super) fn new(body: Map<String, Value>) -> Self {
        Self { unread: body, known: Vec::new(), errors: Vec::new() }
    }

    /// Takes the field and parses it. `None` when it is absent or wrong; what is wrong is remembered.
    pub(super) fn take<T>(&mut self, name: &'static str, parse: impl FnOnce(Value) -> Result<T, String>) -> Option<T> {
        self.learn(name);
        let value = self.unread.remove(name)?;
        parse(value).map_err(|detail| self.fail(name, detail)).ok()
    }

    /// Passes over a field that has no meaning here; null, the empty text and what `asks_for_nothing` are as good as absent, anything else
    /// is wrong.
    pub(super) fn refuse(&mut self, name: &'static str, asks_for_nothing: impl Fn(&Value) -> bool, detail: impl Into<String>) {
        self.learn(name);
        let given = self.unread.remove(name).filter(|value| !value.is_null() && value.as_str() != Some(""));
        if given.is_some_and(|value| !asks_for_nothing(&value)) {
            self.fail(name, detail);
        }
    }

    fn learn(&mut self, name: &'static str) {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
    }

    pub(super) fn fail(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::at(name, detail));
    }

    /// Whether the field was in the body and was wrong.
    pub(super) fn failed(&self, name: &str) -> bool {
        let pointer = FieldError::at(name, "").pointer;
        self.errors.iter().any(|error| error.pointer == pointer)
    }

    /// Every error, the fields that nobody asked for included.
    pub(super) fn into_errors(mut self) -> Vec<FieldError> {
        let known = self.known.join(", ");
        for name in self.unread.keys().take(MAX_UNKNOWN_NAMED) {
            let shown: String = name.chars().take(64).collect();
            self.errors.push(FieldError::at(&shown, format!("unknown field; the fields are {known}")));
        }
        if self.unread.len() > MAX_UNKNOWN_NAMED {
            let detail = format!("has {} unknown fields; the first {MAX_UNKNOWN_NAMED} are named", self.unread.len());
            self.errors.push(FieldError { pointer: String::new(), detail });
        }
        self.errors
    }
}

/// A word for a value's type, and for a number or a short text the value itself, to say what came.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.len() <= 32 => format!("{text:?}"),
        Value::String(text) => format!("a string of {} bytes", text.len()),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// Parses a string of at most `max_chars` characters. NUL is refused: neither PostgreSQL nor a PNG's text can hold it.
pub(super) fn text(max_chars: usize) -> impl Fn(Value) -> Result<String, String> {
    move |value| match value {
        Value::String(text) if text.contains('\0') => Err("must not contain the character U+0000".to_owned()),
        Value::String(text) => {
            let chars = text.chars().count();
            if chars <= max_chars { Ok(text) } else { Err(format!("must have at most {max_chars} characters, got {chars}")) }
        }
        other => Err(format!("must be a string of at most {max_chars} characters, got {}", describe(&other))),
    }
}

/// The whole number that a value is, however it is written: to JSON and its schemas, `7.0` is `7`.
pub(super) fn whole(value: &Value) -> Option<u64> {
    // Beyond 2^53 a float stands for several whole numbers.
    let is_exact = |number: &f64| number.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(number);
    value.as_u64().or_else(|| value.as_f64().filter(is_exact).map(|number| number as u64))
}

/// Parses a whole number from `min` to `max`.
pub(super) fn integer(min: u64, max: u64) -> impl Fn(Value) -> Result<u64, String> {
    move |value| match whole(&value) {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("must be a whole number from {min} to {max}, got {}", describe(&value))),
    }
}

/// Parses `true` or `false`.
pub(super) fn boolean(value: Value) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| format!("must be true or false, got {}", describe(&value)))
}

/// Parses a number from `min` to `max`.
pub(super) fn number(min: f64, max: f64) -> impl Fn(Value) -> Result<f64, String> {
    move |value| match value.as_f64() {
        Some(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("must be a number from {min} to {max}, got {}", describe(&value))),
    }
}
