//! The import rule: which room may know which. Every path in `src/` is read and compared word by word.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::files_under;

/// Each room and what it may import. `telemetry` is a leaf that all may call; the wiring may import everything.
const MAY_IMPORT: [(&str, &[&str]); 7] = [
    ("domain", &[]),
    ("sys", &[]),
    ("telemetry", &[]),
    ("diffusion", &["domain", "dispatch::ports", "sys", "telemetry"]),
    ("store", &["domain", "dispatch::ports", "telemetry"]),
    ("dispatch", &["domain", "telemetry"]),
    ("api", &["domain", "dispatch", "telemetry"]),
];
/// What only one room knows; `app` puts the parts together and may name axum's server.
const OWNED: [(&str, &[&str]); 8] = [
    ("tch", &["diffusion", "sys"]),
    ("sqlx", &["store"]),
    ("object_store", &["store"]),
    ("axum", &["api", "app"]),
    ("hyper", &["api"]),
    ("hyper_util", &["api"]),
    ("clap", &["cli"]),
    ("unsafe", &["sys"]),
];

struct Source {
    file: String,
    room: String,
    /// Modules between the crate's root and this file's items.
    depth: usize,
    words: Vec<String>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    files_under(&root).iter().map(|file| read(&root, file)).collect()
}

fn read(root: &Path, file: &Path) -> Source {
    let inside = file.strip_prefix(root).unwrap().with_extension("");
    let mut modules: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let room = modules[0].clone();
    modules.retain(|module| module != "mod");
    Source { file: inside.display().to_string(), room, depth: modules.len(), words: words(&fs::read_to_string(file).unwrap()) }
}

/// Identifiers and marks, without comments, texts and the unit tests at a file's end, which may look where they like.
fn words(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let (mut words, mut word) = (Vec::new(), String::new());
    let mut rest = source;
    while let Some(character) = rest.chars().next() {
        let skipped = skip(rest);
        if skipped == 0 && (character.is_alphanumeric() || character == '_') {
            word.push(character);
            rest = &rest[character.len_utf8()..];
            continue;
        }
        if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if skipped == 0 && !character.is_whitespace() {
            words.push(character.to_string());
        }
        rest = &rest[skipped.max(character.len_utf8())..];
    }
    words
}

/// The length of the comment, text or character that `code` begins with; 0 when it begins with none.
fn skip(code: &str) -> usize {
    let through = |end: &str, from: usize| code[from..].find(end).map_or(code.len(), |at| from + at + end.len());
    if code.starts_with("//") {
        return through("\n", 2);
    }
    if code.starts_with("/*") {
        return through("*/", 2);
    }
    if let Some(raw) = code.strip_prefix("r#").filter(|raw| raw.starts_with(['"', '#'])) {
        let hashes = 1 + raw.len() - raw.trim_start_matches('#').len();
        return through(&format!("\"{}", "#".repeat(hashes)), 2 + hashes);
    }
    match code.as_bytes() {
        [b'r', b'"', ..] => through("\"", 2),
        [b'"', ..] => quoted(code, '"'),
        // A character, not a lifetime: it is closed after one character or one escape.
        [b'\'', b'\\', ..] => quoted(code, '\''),
        [b'\'', ..] if code.chars().nth(2) == Some('\'') => quoted(code, '\''),
        _ => 0,
    }
}

fn quoted(code: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in code.char_indices().skip(1) {
        if character == quote && !escaped {
            return at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    code.len()
}

/// The first two segments of every path of ours: through `crate::`, or through as many `super::` as lead to the root.
fn imports(source: &Source) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at < source.words.len() {
        let start = at;
        let mut ups = 0;
        while source.words[at..].starts_with(&["super".into(), ":".into(), ":".into()]) {
            (at, ups) = (at + 3, ups + 1);
        }
        if source.words[at..].starts_with(&["crate".into(), ":".into(), ":".into()]) {
            tree(&source.words, at + 3, "", &mut found);
        } else if ups >= source.depth && ups > 0 {
            tree(&source.words, at, "", &mut found);
        }
        at = at.max(start + 1);
    }
    found
}

/// Reads a use tree from `at`, notes its paths of at most two segments, and answers where it ends.
fn tree(words: &[String], mut at: usize, prefix: &str, found: &mut BTreeSet<String>) -> usize {
    if words[at] == "{" {
        at += 1;
        while words[at] != "}" {
            at = if words[at] == "," { at + 1 } else { tree(words, at, prefix, found) };
        }
        return at + 1;
    }
    let path = if prefix.is_empty() { words[at].clone() } else { format!("{prefix}::{}", words[at]) };
    at += 1;
    if words[at..].starts_with(&[":".into(), ":".into()]) && !path.contains("::") {
        return tree(words, at + 2, &path, found);
    }
    found.insert(path);
    // What follows behind the second segment changes nothing; skip to the end of this branch.
    let mut open = 0;
    while let Some(word) = words.get(at) {
        match word.as_str() {
            "{" => open += 1,
            "}" if open > 0 => open -= 1,
            "," | ";" | "}" | "(" | ")" | "<" | ">" | "=" if open == 0 => break,
            _ => {}
        }
        at += 1;
    }
    at
}

fn allowed(room: &str, path: &str) -> bool {
    let Some((_, rooms)) = MAY_IMPORT.iter().find(|(name, _)| *name == room) else { return true };
    let first = path.split("::").next().unwrap_or_default();
    first == room || rooms.iter().any(|allowed| *allowed == first || *allowed == path)
}

#[test]
fn every_room_imports_only_what_it_may() {
    for source in sources() {
        for path in imports(&source) {
            assert!(allowed(&source.room, &path), "{} may not know {path}", source.file);
        }
    }
}

#[test]
fn what_one_room_owns_no_other_names() {
    for source in sources() {
        for (word, owners) in OWNED {
            let names = source.words.iter().any(|other| other == word);
            assert!(!names || owners.contains(&source.room.as_str()), "{} may not name {word}", source.file);
        }
    }
}

#[test]
fn a_forbidden_import_would_be_found() {
    let source = |code: &str| Source { file: "x".into(), room: "domain".into(), depth: 2, words: words(code) };
    let found = |code: &str| imports(&source(code)).into_iter().collect::<Vec<_>>();
    assert_eq!(found("use crate::{api::ApiState, domain::{Job, JobId}};"), ["api::ApiState", "domain::Job", "domain::JobId"]);
    assert_eq!(found("let x = crate::store::SqliteStore::open(url);"), ["store::SqliteStore"]);
    assert_eq!(found("use super::super::dispatch::ports::Engine;"), ["dispatch::ports"]);
    assert!(found("use super::job::Job; // crate::api::x").is_empty());
    assert!(found(r##"let x = ("crate::api", r#"crate::api"#, 'c', b'"', '\'', "\"crate::api");"##).is_empty());
    assert_eq!(found(r#"let url = "http://x"; let mark = b'"'; crate::store::x();"#), ["store::x"]);
    assert!(
        !allowed("domain", "api::ApiState") && allowed("store", "dispatch::ports") && !allowed("store", "dispatch::Dispatcher")
    );
}
