//! Values held to the document's schemas, which are JSON Schema 2020-12.

use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};

use super::document::Document;
use crate::support::SseEvent;

/// What stops a reader of a schema: a value that does not keep it, or one that has more than it tells.
pub(super) fn violations(document: &Document, schema: &Value, value: &Value) -> Vec<String> {
    let errors = validator(document, schema);
    errors.iter_errors(value).map(|error| format!("{} at {}", error, error.instance_path())).collect()
}

pub(super) fn assert_keeps(document: &Document, schema: &Value, value: &Value, what: &str) {
    let violations = violations(document, schema, value);
    assert!(violations.is_empty(), "{what}: {}\n{value:#}", violations.join("\n"));
}

/// Holds an event to the schema of its stream, and its data to the schema that is named there for them.
pub(super) fn assert_event_keeps(document: &Document, schema: &Value, event: &SseEvent, what: &str) {
    let message = json!({"id": event.id.to_string(), "event": event.name, "data": event.data.to_string()});
    assert_keeps(document, schema, &message, what);
    let kinds = document.resolve(schema)["oneOf"].as_array().unwrap().iter().map(|kind| document.resolve(kind));
    let kind = kinds.into_iter().find(|kind| violations(document, kind, &message).is_empty()).unwrap();
    let data = document.resolve(&kind["properties"]["data"]);
    assert_keeps(document, &data["contentSchema"], &event.data, &format!("{what}, {}", event.name));
}

fn validator(document: &Document, schema: &Value) -> Validator {
    let mut components = document.0["components"].clone();
    // Examples are no schemas, and some of them look like one.
    components.as_object_mut().unwrap().retain(|kind, _| kind == "schemas");
    let mut whole = json!({"components": components, "allOf": [schema]});
    close(&mut whole);
    jsonschema::options().with_draft(Draft::Draft202012).should_validate_formats(true).build(&whole).unwrap()
}

/// Forbids every object what it does not list, so that an undocumented field is found.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if is_open(fields) {
                fields.insert("additionalProperties".to_owned(), json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn is_open(fields: &Map<String, Value>) -> bool {
    fields.get("properties").is_some_and(Value::is_object)
        && fields.contains_key("type")
        && !fields.contains_key("additionalProperties")
}
