//! The contract, held both ways: what `openapi.yaml` tells is what the server does, and the server does nothing else.

mod document;
mod everywhere;
mod scenarios;
mod schema;
mod witness;

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::{Value, json};

use self::{
    document::{Document, Operation},
    schema::{assert_event_keeps, assert_keeps},
    witness::Witness,
};
use crate::support::{json_of, spawn_app, sse_events};

/// The server's own faults, which nothing from outside brings about. A damaged picture shows how they are answered, and one table
/// writes all of them.
fn is_beyond_reach(operation: &str, status: u16) -> bool {
    status == 500 && operation != "getImage"
}

fn texts_of<'a>(source: &'a str, before: &'a str) -> BTreeSet<&'a str> {
    source.split(before).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

fn source(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api").join(file)).unwrap()
}

#[test]
fn every_route_is_documented_and_every_documented_path_is_a_route() {
    let router = source("mod.rs");
    let document = Document::load();
    assert_eq!(texts_of(&router, ".route(\""), document.paths().into_iter().collect());
}

#[tokio::test]
async fn every_documented_answer_is_given_and_every_answer_is_documented() {
    let witness = Witness::new();
    scenarios::questions(&witness).await;
    scenarios::a_painted_job(&witness).await;
    scenarios::pictures_that_come_in(&witness).await;
    scenarios::a_busy_device(&witness).await;
    scenarios::bad_bodies(&witness).await;
    scenarios::a_slow_body(&witness).await;
    scenarios::too_many_streams(&witness).await;
    scenarios::a_damaged_picture(&witness).await;
    scenarios::a_job_again(&witness).await;
    scenarios::a_keyed_request(&witness).await;
    scenarios::the_queue(&witness).await;
    everywhere::other_methods(&witness).await;
    everywhere::a_job_that_is_not_there(&witness).await;
    everywhere::no_key(&witness).await;
    everywhere::another_site(&witness).await;
    everywhere::another_name(&witness).await;
    everywhere::too_many_requests(&witness).await;
    everywhere::a_store_that_is_away(&witness).await;
    let document = Document::load();
    let statuses = |operation: Operation<'_>| {
        let statuses = operation.responses(&document).into_iter().map(|(status, _)| (operation.id().to_owned(), status));
        statuses.collect::<Vec<_>>()
    };
    let documented: BTreeSet<_> = document.operations().into_iter().flat_map(statuses).collect();
    let seen = witness.seen();
    let missing: Vec<_> = documented.difference(&seen).filter(|(operation, status)| !is_beyond_reach(operation, *status)).collect();
    assert!(missing.is_empty(), "documented, but no scenario brings it about: {missing:?}");
}

#[test]
fn every_example_keeps_its_schema() {
    let document = Document::load();
    for operation in document.operations() {
        let what = operation.id();
        for parameter in operation.parameters(&document) {
            check_examples(&document, parameter, what);
        }
        if let Some(body) = operation.body.get("requestBody") {
            check_content(&document, body, what);
        }
        for (status, response) in operation.responses(&document) {
            check_content(&document, response, &format!("{what} {status}"));
            for header in response["headers"].as_object().into_iter().flat_map(|headers| headers.values()) {
                check_examples(&document, document.resolve(header), what);
            }
        }
    }
}

fn check_content(document: &Document, holder: &Value, what: &str) {
    for media_type in holder["content"].as_object().into_iter().flat_map(|content| content.values()) {
        check_examples(document, media_type, what);
    }
}

/// Every JSON answer has an example, and every example is one.
fn check_examples(document: &Document, holder: &Value, what: &str) {
    let several = holder["examples"].as_object().into_iter().flat_map(|examples| examples.values());
    let examples = several.map(|example| &document.resolve(example)["value"]).chain(holder.get("example"));
    for example in examples {
        match (example, document.resolve(&holder["schema"]).get("oneOf")) {
            (Value::String(stream), Some(_)) => {
                let events = sse_events(stream);
                assert!(events.len() > 1, "{what}: no stream");
                events.iter().for_each(|event| assert_event_keeps(document, &holder["schema"], event, what));
            }
            _ => assert_keeps(document, &holder["schema"], example, what),
        }
    }
}

#[test]
fn every_answer_in_json_has_an_example() {
    let document = Document::load();
    for operation in document.operations() {
        for (status, response) in operation.responses(&document) {
            for (media_type, content) in response["content"].as_object().into_iter().flatten() {
                let has_one = content.get("example").is_some() || content.get("examples").is_some();
                assert!(has_one || !media_type.ends_with("json"), "{} {status} has no example", operation.id());
            }
        }
    }
}

#[test]
fn the_codes_of_the_problems_are_those_of_the_table_and_each_is_shown_where_it_comes() {
    let table = source("error.rs");
    let table = table.split("#[cfg(test)]").next().unwrap();
    let in_table: BTreeSet<&str> = table.split("Row::new(").skip(1).filter_map(|row| row.split('"').nth(1)).collect();
    let document = Document::load();
    let listed = document.0["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().unwrap();
    assert_eq!(in_table, listed.iter().map(|code| code.as_str().unwrap()).collect());
    let mut shown = BTreeSet::new();
    for operation in document.operations() {
        for (status, response) in operation.responses(&document) {
            codes_shown(&document, response, status, &mut shown);
        }
    }
    assert_eq!(in_table, shown.iter().map(String::as_str).collect());
}

/// The codes of a response's examples, whose status must be the response's own.
fn codes_shown(document: &Document, response: &Value, status: u16, shown: &mut BTreeSet<String>) {
    let content = &response["content"]["application/problem+json"];
    let several = content["examples"].as_object().into_iter().flat_map(|examples| examples.values());
    let several = several.map(|example| &document.resolve(example)["value"]);
    for example in several.chain(content.get("example")) {
        let code = example["code"].as_str().unwrap();
        assert_eq!((&example["status"], &example["type"]), (&json!(status), &json!(format!("urn:easel:problem:{code}"))));
        let description = response["description"].as_str().unwrap();
        assert!(description.contains(&format!("`{code}`")), "{code} is shown but not named in {description:?}");
        shown.insert(code.to_owned());
    }
}

#[tokio::test]
async fn the_schedulers_that_are_documented_are_those_that_are_served() {
    let app = spawn_app().await;
    let served = json_of(app.get("/v1/schedulers").await, 200).await;
    let schemas = &Document::load().0["components"]["schemas"];
    let listed = served["schedulers"].as_array().unwrap();
    let names: Vec<Value> = listed.iter().flat_map(|scheduler| scheduler["names"].as_array().unwrap().clone()).collect();
    assert_eq!(schemas["Scheduler"]["enum"], json!(names));
    app.finish().await;
}
