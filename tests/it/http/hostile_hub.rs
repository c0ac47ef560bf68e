//! `easel pull` from a hub that lies, or into a cache that somebody has prepared: nothing is written outside the cache, no token goes to
//! strangers, and every end is a message.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Output,
    sync::Arc,
};

use tempfile::TempDir;

use super::pull::{in_cache, pull, said};
use crate::support::{COMMIT, Lie, Shelf, sha256, spawn_hub};

const FILE: &str = "m.safetensors";
const WEIGHTS: &[u8] = b"the content that the hub has";

/// A user's folder with a file in it that no hub may touch, and the hub's cache beside.
struct Home {
    folder: TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(home.mine()).unwrap();
        fs::write(home.mine().join("important.txt"), "mine").unwrap();
        home
    }

    fn mine(&self) -> PathBuf {
        self.folder.path().join("mine")
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("huggingface")
    }

    async fn pull(&self, shelf: Shelf) -> Output {
        pull(&spawn_hub(Arc::new(shelf)).await, &self.cache(), &[], Some("hf_secret")).await
    }

    async fn pull_lies(&self, lie: Lie) -> Output {
        self.pull(Shelf { lie: Some(lie), ..Shelf::with(FILE, WEIGHTS) }).await
    }

    /// Everything outside the cache is as it was.
    fn assert_untouched(&self) {
        let names = |folder: &Path| -> Vec<_> { fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect() };
        assert_eq!(names(&self.mine()), ["important.txt"]);
        assert_eq!(fs::read_to_string(self.mine().join("important.txt")).unwrap(), "mine");
        assert!(names(self.folder.path()).iter().all(|name| name == "mine" || name == "huggingface"));
    }

    /// Puts a link into the cache, in place of a file or folder of the model.
    fn plant(&self, name: &str, target: &Path) {
        let link = in_cache(&self.cache(), name);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(target, link).unwrap();
    }

    fn pulled(&self) -> Option<Vec<u8>> {
        fs::read(in_cache(&self.cache(), &format!("snapshots/{COMMIT}/{FILE}"))).ok()
    }
}

fn assert_refused(output: &Output, reason: &str) {
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    assert!(said(output).contains(reason), "{}", said(output));
}

#[tokio::test]
async fn a_checksum_that_is_a_path_is_refused_and_one_that_comes_later_is_not_believed() {
    let home = Home::new();
    let victim = home.mine().join("important.txt");
    for text in [victim.to_str().unwrap(), "../../../../mine/important.txt", "", "."] {
        assert_refused(&home.pull_lies(Lie::etag(text, 1)).await, "is not a checksum");
    }
    // The look is at the hub and at the store; what they say from then on is not asked for.
    let output = home.pull_lies(Lie::etag(victim.to_str().unwrap(), 3)).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(home.pulled().unwrap(), WEIGHTS);
    home.assert_untouched();
}

#[tokio::test]
async fn commits_and_names_that_lead_out_of_the_cache_are_refused() {
    let home = Home::new();
    for commit in [home.mine().join("folder").to_str().unwrap(), "../../../mine", &"f".repeat(40)] {
        assert_refused(&home.pull_lies(Lie::Commit(commit.to_owned())).await, "the hub answers with the commit");
    }
    for sha in ["../../../../mine", "", "main", home.mine().to_str().unwrap()] {
        assert_refused(&home.pull_lies(Lie::Sha(sha.to_owned())).await, "not a list of a repository's files");
    }
    for name in ["../../../../mine/m.safetensors", "/m.safetensors", "a//m.safetensors", "\u{1b}[2Jm.safetensors"] {
        let output = home.pull_lies(Lie::Listing(name.to_owned())).await;
        assert_refused(&output, "not a list of a repository's files");
        assert!(!said(&output).contains('\u{1b}'));
    }
    assert_eq!(home.pulled(), None);
    home.assert_untouched();
}

#[tokio::test]
async fn only_the_hub_gets_the_token() {
    let home = Home::new();
    let stranger = Arc::new(Shelf::with(FILE, WEIGHTS));
    // The same machine, and so the same host's name, but another origin.
    let elsewhere = spawn_hub(stranger.clone()).await;
    let hub = Arc::new(Shelf { lie: Some(Lie::Elsewhere(elsewhere)), ..Shelf::with(FILE, WEIGHTS) });
    let output = pull(&spawn_hub(hub.clone()).await, &home.cache(), &[], Some("hf_secret")).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(home.pulled().unwrap(), WEIGHTS);
    let (told, overheard) = (hub.authorizations.lock().unwrap(), stranger.authorizations.lock().unwrap());
    assert!(told.len() >= 3 && told.iter().all(|token| token.as_deref() == Some("Bearer hf_secret")), "{told:?}");
    assert!(overheard.len() >= 3 && overheard.iter().all(Option::is_none), "{overheard:?}");
}

#[tokio::test]
async fn redirects_that_lead_nowhere_or_have_no_end_are_refused() {
    let home = Home::new();
    assert_refused(&home.pull_lies(Lie::Nowhere).await, "redirects, and not to an address");
    assert_refused(&home.pull_lies(Lie::Circle).await, "redirects more than");
    assert_refused(&home.pull_lies(Lie::Elsewhere("file:///etc".to_owned())).await, "redirects, and not to an address");
}

#[tokio::test]
async fn a_file_is_no_longer_and_no_other_than_was_announced() {
    let home = Home::new();
    assert_refused(&home.pull_lies(Lie::Size(1 << 60)).await, "has room for");
    assert_refused(&home.pull_lies(Lie::Size(3)).await, "now says 28");
    assert_refused(&home.pull_lies(Lie::Shifted).await, "sends byte 1");
    assert_eq!(home.pulled(), None);
    let output = home.pull_lies(Lie::Endless).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(home.pulled().unwrap(), WEIGHTS);
}

#[tokio::test]
async fn a_config_as_large_as_weights_is_refused() {
    let (home, mut shelf) = (Home::new(), Shelf::with("model_index.json", b"{}"));
    shelf.lie = Some(Lie::Size(1 << 30));
    assert_refused(&home.pull(shelf).await, "model_index.json: has 1073741824 bytes");
}

#[tokio::test]
async fn links_in_the_cache_are_not_followed_out_of_it() {
    let part = format!("blobs/{}.part", sha256(WEIGHTS));
    let lock = format!("blobs/{}.lock", sha256(WEIGHTS));
    let blob = format!("blobs/{}", sha256(WEIGHTS));
    for folder in ["blobs", "snapshots", &format!("snapshots/{COMMIT}"), "refs"] {
        let home = Home::new();
        home.plant(folder, &home.mine());
        assert_refused(&home.pull(Shelf::with(FILE, WEIGHTS)).await, "leads out of the hub's cache");
        home.assert_untouched();
    }
    for file in [&part, &lock, &blob] {
        let home = Home::new();
        home.plant(file, &home.mine().join("important.txt"));
        assert_refused(&home.pull(Shelf::with(FILE, WEIGHTS)).await, "symbolic links");
        home.assert_untouched();
    }
    for file in [&format!("snapshots/{COMMIT}/{FILE}"), "refs/main", &format!("blobs/{}.link", sha256(WEIGHTS))] {
        let home = Home::new();
        home.plant(file, &home.mine().join("important.txt"));
        let output = home.pull(Shelf::with(FILE, WEIGHTS)).await;
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(home.pulled().unwrap(), WEIGHTS);
        home.assert_untouched();
    }
}
