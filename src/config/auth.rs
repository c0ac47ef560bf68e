//! `[auth]`: who may come in, and how much each may ask for.

use figment::value::Value;
use serde::{Deserialize, Deserializer, de::Error};

use super::{ConfigError, check_range, wrong};

/// What the log calls a client without a key.
const ANONYMOUS: &str = "anonymous";
const MAX_NAME_BYTES: usize = 64;
const SHA256_DIGITS: usize = 64;
const MAX_REQUESTS_PER_SECOND: u32 = 1_000_000;
const MAX_JOBS: u64 = 1_000_000;

/// `[auth]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub struct AuthConfig {
    pub allow_anonymous: bool,
    pub requests_per_second: u32,
    pub max_queued_jobs: u64,
    pub max_running_jobs: u64,
    #[serde(default, deserialize_with = "list_of_keys")]
    pub keys: Vec<KeyConfig>,
}

/// One entry of `[[auth.keys]]`. A limit that is `None` is the one of `[auth]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "described in config/default.toml")]
pub struct KeyConfig {
    pub name: String,
    pub sha256: String,
    #[serde(default)]
    pub admin: bool,
    pub requests_per_second: Option<u32>,
    pub max_queued_jobs: Option<u64>,
    pub max_running_jobs: Option<u64>,
}

/// Reads the list. What is no list is not repeated in the error: it may be a key that somebody has put here as it is.
fn list_of_keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<KeyConfig>, D::Error> {
    let value = <Value as Deserialize>::deserialize(deserializer)?;
    if !value.as_array().is_some_and(|list| list.iter().all(|entry| entry.as_dict().is_some())) {
        return Err(D::Error::custom(
            "expected a list such as [{name=\"alice\",sha256=\"…\"}]; `easel key NAME` makes its entries",
        ));
    }
    value.deserialize().map_err(D::Error::custom)
}

impl AuthConfig {
    /// Whether it has been said who may come in, so that others than this machine may try.
    pub fn is_fit_for_networks(&self) -> bool {
        !self.keys.is_empty() || self.allow_anonymous
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let limits = Limits {
            requests_per_second: Some(self.requests_per_second),
            max_queued_jobs: Some(self.max_queued_jobs),
            max_running_jobs: Some(self.max_running_jobs),
        };
        limits.check(|field| format!("auth.{field}"))?;
        for (place, key) in self.keys.iter().enumerate() {
            check_key(key, &self.keys[..place])?;
        }
        Ok(())
    }
}

struct Limits {
    requests_per_second: Option<u32>,
    max_queued_jobs: Option<u64>,
    max_running_jobs: Option<u64>,
}

impl Limits {
    fn check(&self, name: impl Fn(&str) -> String) -> Result<(), ConfigError> {
        check_range(&name("requests_per_second"), self.requests_per_second.unwrap_or(0), 0..=MAX_REQUESTS_PER_SECOND)?;
        check_range(&name("max_queued_jobs"), self.max_queued_jobs.unwrap_or(0), 0..=MAX_JOBS)?;
        check_range(&name("max_running_jobs"), self.max_running_jobs.unwrap_or(0), 0..=MAX_JOBS)
    }
}

/// The name of a key, if it can stand in the log as it is.
///
/// # Errors
/// Says what is allowed.
pub fn key_name(name: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(is_plain) {
        return Err(format!("must be 1 to {MAX_NAME_BYTES} of A-Z a-z 0-9 . _ -, got {name:?}"));
    }
    if name == ANONYMOUS {
        return Err(format!("must not be {ANONYMOUS:?}, which is what clients without a key are called"));
    }
    Ok(name.to_owned())
}

fn check_key(key: &KeyConfig, before: &[KeyConfig]) -> Result<(), ConfigError> {
    let place = |field: &str| format!("auth.keys[{}].{field}", before.len());
    if let Err(problem) = key_name(&key.name) {
        return wrong(place("name"), problem);
    }
    if before.iter().any(|other| other.name == key.name) {
        return wrong(place("name"), format!("must be different from all others, got {:?} again", key.name));
    }
    check_sha256(&place("sha256"), key, before)?;
    let KeyConfig { requests_per_second, max_queued_jobs, max_running_jobs, .. } = *key;
    Limits { requests_per_second, max_queued_jobs, max_running_jobs }.check(place)
}

/// What stands there instead of a hash is not repeated: it may be the key.
fn check_sha256(place: &str, key: &KeyConfig, before: &[KeyConfig]) -> Result<(), ConfigError> {
    let name = &key.name;
    if key.sha256.len() != SHA256_DIGITS || !key.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let problem = format!(
            "must be the key's SHA-256 in {SHA256_DIGITS} hexadecimal digits, never the key itself; \
             `easel key {name}` makes a key and its hash, `easel key {name} --stdin` hashes the key on standard input"
        );
        return wrong(place.to_owned(), problem);
    }
    match before.iter().find(|other| other.sha256.eq_ignore_ascii_case(&key.sha256)) {
        Some(other) => wrong(place.to_owned(), format!("must be different from all others, but {:?} has the same key", other.name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::load;

    const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn entry(name: &str, more: &str) -> String {
        format!("[[auth.keys]]\nname = {name:?}\n{more}\n")
    }

    #[test]
    fn without_keys_nothing_is_asked_for_and_nothing_is_limited() {
        let auth = load("").unwrap().auth;
        assert!(!auth.is_fit_for_networks() && auth.keys.is_empty());
        assert_eq!((auth.requests_per_second, auth.max_queued_jobs, auth.max_running_jobs), (0, 0, 0));
    }

    #[test]
    fn only_who_says_who_may_come_in_may_face_a_network() {
        assert!(load(&entry("alice", &format!("sha256 = {HASH:?}"))).unwrap().auth.is_fit_for_networks());
        assert!(load("[auth]\nallow_anonymous = true\n").unwrap().auth.is_fit_for_networks());
    }

    #[test]
    fn a_wrong_limit_is_named_by_its_place() {
        for (limit, max) in [("requests_per_second", 1_000_000), ("max_queued_jobs", 1_000_000), ("max_running_jobs", 1_000_000)] {
            let problem = load(&format!("[auth]\n{limit} = {}\n", max + 1)).unwrap_err();
            assert_eq!(problem, format!("auth.{limit}: must be from 0 to {max}, got {}", max + 1));
            let own = entry("alice", &format!("sha256 = {HASH:?}\n{limit} = {}", max + 1));
            assert_eq!(load(&own).unwrap_err(), format!("auth.keys[0].{limit}: must be from 0 to {max}, got {}", max + 1));
        }
    }

    #[test]
    fn a_name_is_a_plain_word_that_no_other_key_has() {
        let hash = format!("sha256 = {HASH:?}");
        for bad in ["", "two words", "é", &"x".repeat(65)] {
            let problem = load(&entry(bad, &hash)).unwrap_err();
            assert!(problem.starts_with("auth.keys[0].name: must be 1 to 64 of"), "{problem}");
        }
        assert!(load(&entry("anonymous", &hash)).unwrap_err().contains("clients without a key"));
        let other = HASH.replace('9', "8");
        let twice = entry("alice", &hash) + &entry("alice", &format!("sha256 = {other:?}"));
        assert_eq!(load(&twice).unwrap_err(), "auth.keys[1].name: must be different from all others, got \"alice\" again");
    }

    #[test]
    fn a_key_in_the_place_of_its_hash_is_refused_and_not_repeated() {
        for bad in ["easel_hunter2", "", &HASH[1..], &HASH.replace('9', "g")] {
            let problem = load(&entry("alice", &format!("sha256 = {bad:?}"))).unwrap_err();
            assert!(problem.starts_with("auth.keys[0].sha256: must be the key's SHA-256 in 64 hexadecimal digits"), "{problem}");
            assert!(problem.contains("easel key alice") && !problem.contains("hunter2"), "{problem}");
        }
        for list in ["\"easel_hunter2\"", "[\"easel_hunter2\"]"] {
            let problem = load(&format!("[auth]\nkeys = {list}\n")).unwrap_err();
            assert!(problem.contains("auth.keys") && !problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn two_names_for_one_key_are_an_error() {
        let twice = entry("alice", &format!("sha256 = {HASH:?}")) + &entry("bob", &format!("sha256 = {:?}", HASH.to_uppercase()));
        assert!(load(&twice).unwrap_err().contains("but \"alice\" has the same key"));
    }

    #[test]
    fn a_field_that_a_key_does_not_have_is_named() {
        let problem = load(&entry("alice", &format!("sha256 = {HASH:?}\nadmim = true"))).unwrap_err();
        assert!(problem.contains("admim"), "{problem}");
    }
}
