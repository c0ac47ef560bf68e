//! `easel key`, and where a server may listen: the real binary.

use std::{
    fs::{self, File},
    process::Output,
};

use easel::domain::sha256_hex;
use serde_json::json;

use crate::support::{Process, easel, json_of, request, run};

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn a_new_key_opens_the_server_whose_settings_have_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let text = printed(&run(easel(folder.path()).args(["key", "alice", "--admin"])));
    let key = text.split_whitespace().find(|word| word.starts_with("easel_")).unwrap();
    let lines = &text[text.find("[[auth.keys]]").unwrap()..];
    assert!(!lines.contains(key), "the key itself is not for the settings: {text}");
    let file = folder.path().join("easel.toml");
    fs::write(&file, lines).unwrap();
    let server = Process::start(folder.path(), &[("EASEL_CONFIG", file.to_str().unwrap()), ("EASEL__SERVER__BIND", "0.0.0.0:0")]);
    let post = |path: &str| server.http.post(format!("{}{path}", server.url));
    assert_eq!(post("/v1/generate").json(&request(json!({}))).send().await.unwrap().status(), 401);
    let waits = post("/v1/generate").bearer_auth(key).header("prefer", "wait=60").json(&request(json!({})));
    assert_eq!(json_of(waits.send().await.unwrap(), 200).await["status"], "succeeded");
    assert_eq!(post("/v1/queue/pause").bearer_auth(key).send().await.unwrap().status(), 200);
}

#[test]
fn no_two_keys_are_alike_and_the_settings_need_not_be_right_yet() {
    let folder = tempfile::tempdir().unwrap();
    let make = || printed(&run(easel(folder.path()).args(["key", "alice"]).env("EASEL__AUTH__KEYS", "not yet")));
    assert_ne!(make(), make());
}

#[test]
fn a_key_of_ones_own_is_hashed_and_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("key"), "a-key-from-elsewhere");
    fs::write(&file, format!("{key}\n")).unwrap();
    let hash = || easel(folder.path()).args(["key", "bob", "--stdin"]).stdin(File::open(&file).unwrap()).output().unwrap();
    let expected = format!("[[auth.keys]]\nname = \"bob\"\nsha256 = \"{}\"\n", sha256_hex(key.as_bytes()));
    assert_eq!(printed(&hash()), expected);
    fs::write(&file, "short").unwrap();
    let refused = hash();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("must be 16 to 256 visible ASCII characters"));
}

#[test]
fn a_name_that_no_log_could_hold_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, named) in [("two words", "1 to 64 of A-Z a-z 0-9"), ("anonymous", "clients without a key"), ("", "1 to 64 of A-Z")] {
        let output = run(easel(folder.path()).args(["key", name]));
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(named), "{output:?}");
    }
}

#[test]
fn a_key_in_the_settings_instead_of_its_hash_is_refused_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    for keys in ["easel_secret", "[easel_secret]", "[{name=\"alice\",sha256=\"easel_secret\"}]"] {
        let output = run(easel(folder.path()).arg("models").env("EASEL__AUTH__KEYS", keys));
        let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("auth.keys") && said.contains("easel key") && !said.contains("secret"), "{said}");
    }
}

#[test]
fn where_others_can_connect_the_settings_must_say_who_may() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(easel(folder.path()).arg("serve").env("EASEL__SERVER__BIND", "0.0.0.0:0"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for way in ["0.0.0.0:0", "a loopback address", "[[auth.keys]]", "auth.allow_anonymous = true"] {
        assert!(said.contains(way), "{way:?} is missing: {said}");
    }
}

#[tokio::test]
async fn a_server_listens_on_loopback_by_any_name_and_elsewhere_when_everybody_may_come_in() {
    for settings in [
        &[("EASEL__SERVER__BIND", "localhost:0")][..],
        &[("EASEL__SERVER__BIND", "127.0.0.2:0")],
        &[("EASEL__SERVER__BIND", "0.0.0.0:0"), ("EASEL__AUTH__ALLOW_ANONYMOUS", "true")],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let server = Process::start(folder.path(), settings);
        let answer = server.http.get(format!("{}/v1/models", server.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{settings:?}");
    }
}
