//! JSON as Python's libraries write it.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Whose null is one head in a `UNet2DModel`, and not its default.
const HEAD_DIM: &str = "attention_head_dim";

/// Parses an object.
pub(super) fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(&strict_json(text)).map_err(|error| error.to_string())
}

/// Python writes infinities that JSON does not have, such as DPM-Solver's `"lambda_min_clipped": -Infinity`; all mean "no bound".
fn strict_json(text: &str) -> String {
    text.replace(": -Infinity", ": null").replace(": Infinity", ": null").replace(": NaN", ": null")
}

/// Turns an object into a config, and refuses values that are not supported: `(key, what is supported)`, an absent key being fine.
pub(super) fn config_of<T: DeserializeOwned>(mut object: Map<String, Value>, supported: &[(&str, &[Value])]) -> Result<T, String> {
    for (key, values) in supported {
        if let Some(value) = object.get(*key).filter(|value| !values.contains(value)) {
            let values: Vec<String> = values.iter().map(Value::to_string).collect();
            return Err(format!("{key} = {value} is not supported; supported: {}", values.join(", ")));
        }
    }
    if object.get("norm_num_groups").is_some_and(Value::is_null) {
        return Err("norm_num_groups = null (no group norm) is not supported".to_owned());
    }
    if let Some((key, value)) = object.iter().find(|(_, value)| has_huge_number(value)) {
        return Err(format!("{key} = {value:.60} is larger than any network's", value = value.to_string()));
    }
    // The one null that is a choice of its own.
    if let Some(kind) = object.get_mut("mid_block_type").filter(|kind| kind.is_null()) {
        *kind = Value::from("None");
    }
    // Other keys that are null take their defaults, as absent ones do.
    let says_something = |key: &str, value: &Value| !value.is_null() || key == HEAD_DIM;
    let given = object.into_iter().filter(|(key, value)| says_something(key, value)).collect();
    serde_json::from_value(Value::Object(given)).map_err(|error| error.to_string())
}

/// Whether a whole number is in it whose products with others of its kind could overflow. (A vocabulary has some 50,000 words.)
fn has_huge_number(value: &Value) -> bool {
    const MOST: f64 = (1_u32 << 24) as f64;
    match value {
        Value::Number(number) => !number.is_f64() && number.as_f64().is_none_or(|number| number.abs() > MOST),
        Value::Array(values) => values.iter().any(has_huge_number),
        _ => false,
    }
}
