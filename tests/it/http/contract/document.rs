//! `openapi.yaml`, read.

use std::{fs, path::Path};

use serde_json::Value;

/// The contract.
pub(super) struct Document(pub(super) Value);

/// One method of one path.
#[derive(Clone, Copy)]
pub(super) struct Operation<'a> {
    /// As it is written, such as `/v1/jobs/{id}`.
    pub(super) path: &'a str,
    /// In upper case.
    pub(super) method: &'a str,
    pub(super) body: &'a Value,
    shared: &'a Value,
}

const METHODS: [(&str, &str); 6] =
    [("get", "GET"), ("put", "PUT"), ("post", "POST"), ("delete", "DELETE"), ("options", "OPTIONS"), ("patch", "PATCH")];

impl Document {
    pub(super) fn load() -> Self {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.yaml")).unwrap();
        Self(serde_saphyr::from_str(&text).unwrap())
    }

    /// The value itself, or what its `$ref` leads to.
    pub(super) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(link) => {
                let pointer = link.strip_prefix('#').unwrap_or_else(|| panic!("{link} leads outside"));
                self.resolve(self.0.pointer(pointer).unwrap_or_else(|| panic!("{link} leads nowhere")))
            }
            None => value,
        }
    }

    pub(super) fn paths(&self) -> Vec<&str> {
        self.0["paths"].as_object().unwrap().keys().map(String::as_str).collect()
    }

    pub(super) fn operations(&self) -> Vec<Operation<'_>> {
        self.paths().into_iter().flat_map(|path| self.operations_at(path)).collect()
    }

    /// The operations of a path that is documented.
    pub(super) fn operations_at<'a>(&'a self, path: &'a str) -> Vec<Operation<'a>> {
        let shared = &self.0["paths"][path];
        let at = |(key, method)| shared.get(key).map(|body| Operation { path, method, body, shared });
        METHODS.into_iter().filter_map(at).collect()
    }

    /// The operation that a request's method and path, without a query, belong to.
    pub(super) fn find(&self, method: &str, path: &str) -> Operation<'_> {
        let is_it = |operation: &Operation<'_>| operation.method == method && matches(operation.path, path);
        let mut found: Vec<_> = self.operations().into_iter().filter(is_it).collect();
        // An address in full words comes before one with a parameter in its place.
        found.sort_by_key(|operation| operation.path.matches('{').count());
        *found.first().unwrap_or_else(|| panic!("{method} {path} is not documented"))
    }
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path): (Vec<_>, Vec<_>) = (template.split('/').collect(), path.split('/').collect());
    template.len() == path.len() && template.iter().zip(path).all(|(part, given)| part.starts_with('{') || *part == given)
}

impl<'a> Operation<'a> {
    pub(super) fn id(&self) -> &'a str {
        self.body["operationId"].as_str().unwrap_or_else(|| panic!("{} {} has no operationId", self.method, self.path))
    }

    /// The statuses that are documented, each with its response.
    pub(super) fn responses(&self, document: &'a Document) -> Vec<(u16, &'a Value)> {
        let entries = self.body["responses"].as_object().unwrap().iter();
        entries.map(|(status, response)| (status.parse().expect(status), document.resolve(response))).collect()
    }

    pub(super) fn response(&self, document: &'a Document, status: u16) -> &'a Value {
        let mut responses = self.responses(document).into_iter();
        let found = responses.find(|(documented, _)| *documented == status);
        found.unwrap_or_else(|| panic!("{} does not document {status}", self.id())).1
    }

    pub(super) fn documents(&self, status: u16) -> bool {
        self.body["responses"].get(status.to_string()).is_some()
    }

    /// The parameters of the operation and of its path.
    pub(super) fn parameters(&self, document: &'a Document) -> Vec<&'a Value> {
        let lists = [&self.shared["parameters"], &self.body["parameters"]].into_iter();
        lists.filter_map(Value::as_array).flatten().map(|parameter| document.resolve(parameter)).collect()
    }

    /// The path with the document's own examples in it.
    pub(super) fn example_path(&self, document: &Document) -> String {
        let in_path = self.parameters(document).into_iter().filter(|parameter| parameter["in"] == "path");
        in_path.fold(self.path.to_owned(), |path, parameter| {
            let example = &parameter["example"];
            let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), &text)
        })
    }

    /// The first example of a JSON body, if the operation takes one.
    pub(super) fn example_body(&self) -> Option<&'a Value> {
        let examples = self.body.pointer("/requestBody/content/application~1json/examples")?;
        Some(&examples.as_object()?.values().next()?["value"])
    }
}
