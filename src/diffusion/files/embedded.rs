//! The configs that a file carries in its metadata, as Easel writes them: `easel.configs`, a JSON object from file name to content.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The key of the metadata.
pub(super) const KEY: &str = "easel.configs";

/// What a folder held besides weights, by path: `unet/config.json`, `tokenizer/merges.txt`, `latent_rgb.json`.
#[derive(Debug, Default)]
pub(super) struct EmbeddedConfigs(BTreeMap<String, Value>);

impl EmbeddedConfigs {
    /// Reads what the metadata has; nothing when it has none.
    ///
    /// # Errors
    /// When it is not what Easel writes. A path that leads out of the model's folder is refused: the files may be written some day.
    pub(super) fn read(metadata: &BTreeMap<String, String>) -> Result<Self, String> {
        let Some(text) = metadata.get(KEY) else { return Ok(Self::default()) };
        let configs: BTreeMap<String, Value> =
            serde_json::from_str(text).map_err(|error| format!("the metadata {KEY}: {error}"))?;
        match configs.keys().find(|path| !is_plain(path)) {
            Some(path) => Err(format!("the metadata {KEY}: {path:?} is not the path of a config")),
            None => Ok(Self(configs)),
        }
    }

    /// Keeps a file: JSON as JSON, anything else as text. What has no name of a config's is passed over.
    pub(super) fn keep(&mut self, path: String, text: String) {
        if !is_plain(&path) {
            return;
        }
        let value = if path.ends_with(".json") { serde_json::from_str(&text).ok() } else { None };
        self.0.insert(path, value.unwrap_or(Value::String(text)));
    }

    /// As the metadata has it.
    pub(super) fn to_text(&self) -> String {
        Value::Object(self.0.iter().map(|(path, value)| (path.clone(), value.clone())).collect()).to_string()
    }

    /// A file that holds an object.
    pub(super) fn object(&self, path: &str) -> Option<&Map<String, Value>> {
        self.0.get(path)?.as_object()
    }

    /// The files directly in a folder (`unet/`, or nothing for the root), by name.
    pub(super) fn texts_of(&self, folder: &str) -> BTreeMap<String, String> {
        let files = self.0.iter().filter_map(|(path, value)| Some((path.strip_prefix(folder)?, value)));
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        files.filter(|(name, _)| !name.contains('/')).map(|(name, value)| (name.to_owned(), text(value))).collect()
    }
}

/// A name, or a folder and a name, of ordinary characters.
fn is_plain(path: &str) -> bool {
    let is_name = |name: &str| {
        let is_ordinary = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        !name.is_empty() && name.len() <= 128 && !name.starts_with('.') && name.chars().all(is_ordinary)
    };
    (path.ends_with(".json") || path.ends_with(".txt")) && path.split('/').count() <= 2 && path.split('/').all(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in [
            "../model_index.json",
            "/etc/config.json",
            "unet/../../x.json",
            "a/b/c.json",
            ".ssh/x.txt",
            "unet/config.sh",
            "unet//x.json",
            "x\\y.json",
        ] {
            let metadata = BTreeMap::from([(KEY.to_owned(), serde_json::json!({ path: {} }).to_string())]);
            assert!(EmbeddedConfigs::read(&metadata).unwrap_err().contains("not the path of a config"), "{path}");
        }
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let mut kept = EmbeddedConfigs::default();
        kept.keep("unet/config.json".to_owned(), r#"{"in_channels": 4}"#.to_owned());
        kept.keep("tokenizer/merges.txt".to_owned(), "#version: 0.2\na b\n".to_owned());
        let read = EmbeddedConfigs::read(&BTreeMap::from([(KEY.to_owned(), kept.to_text())])).unwrap();
        assert_eq!(read.object("unet/config.json").unwrap()["in_channels"], 4);
        assert_eq!(read.texts_of("tokenizer/"), BTreeMap::from([("merges.txt".to_owned(), "#version: 0.2\na b\n".to_owned())]));
    }
}
