//! `easel pull`, against a hub of the test's own with the routes of huggingface.co.

use std::{fs, path::Path, process::Output, sync::Arc};

use crate::support::{COMMIT, Shelf, easel, run, spawn_hub};

/// A small model whose VAE has weights of 16 bits beside others, which are no weights here, and files that nobody needs.
fn shelf() -> Shelf {
    let mut shelf = Shelf::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-sd1"));
    let vae = shelf.files.insert("vae/diffusion_pytorch_model.safetensors".to_owned(), b"the full weights".to_vec()).unwrap();
    shelf.files.insert("vae/diffusion_pytorch_model.fp16.safetensors".to_owned(), vae);
    for unwanted in ["README.md", "v1-5-pruned.ckpt", "unet/diffusion_pytorch_model.bin", "safety_checker/model.safetensors"] {
        shelf.files.insert(unwanted.to_owned(), b"not asked for".to_vec());
    }
    shelf
}

async fn pull(url: &str, home: &Path, arguments: &'static [&'static str], token: Option<&str>) -> Output {
    let mut command = easel(home);
    command.args(["pull", "owner/name"]).args(arguments).env("HF_ENDPOINT", url).env("HF_HOME", home).env_remove("HF_TOKEN");
    command.envs(token.map(|token| ("HF_TOKEN", token)));
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_pulled_model_paints_with_the_settings_that_pull_prints() {
    let (home, shelf) = (tempfile::tempdir().unwrap(), Arc::new(shelf()));
    let url = spawn_hub(shelf.clone()).await;
    let output = pull(&url, home.path(), &[], None).await;
    assert!(output.status.success(), "{}", said(&output));
    let sent = shelf.names_sent();
    assert!(sent.contains(&"vae/diffusion_pytorch_model.fp16.safetensors".to_owned()), "{sent:?}");
    assert_eq!(sent.iter().filter(|name| name.starts_with("unet/")).count(), 10, "config, index and eight shards: {sent:?}");
    assert!(sent.iter().all(|name| shelf.files[name] != b"not asked for" && shelf.files[name] != b"the full weights"), "{sent:?}");
    let (settings, picture) = (home.path().join("easel.toml"), home.path().join("picture.png"));
    fs::write(&settings, &output.stdout).unwrap();
    let size = ["--steps", "1", "--width", "64", "--height", "64", "-o"];
    let painted = run(easel(home.path()).arg("--config").arg(&settings).args(["generate", "a house"]).args(size).arg(&picture));
    assert!(painted.status.success(), "{}", said(&painted));
    assert!(fs::metadata(picture).unwrap().len() > 100);
}

#[tokio::test]
async fn what_is_there_already_is_not_fetched_again() {
    let (home, shelf) = (tempfile::tempdir().unwrap(), Arc::new(shelf()));
    let url = spawn_hub(shelf.clone()).await;
    let first = pull(&url, home.path(), &[], None).await;
    let fetched = shelf.names_sent().len();
    let second = pull(&url, home.path(), &[], None).await;
    assert!(second.status.success(), "{}", said(&second));
    assert_eq!(shelf.names_sent().len(), fetched);
    assert_eq!(first.stdout, second.stdout);
    assert!(String::from_utf8_lossy(&first.stdout).contains(COMMIT));
}

#[tokio::test]
async fn a_fetch_that_was_cut_off_goes_on_where_it_ended() {
    const FILE: &str = "text_encoder/model.safetensors";
    let (home, shelf) = (tempfile::tempdir().unwrap(), Arc::new(shelf()));
    *shelf.cut_once.lock().unwrap() = Some(FILE);
    let url = spawn_hub(shelf.clone()).await;
    let output = pull(&url, home.path(), &[], None).await;
    assert!(output.status.success(), "{}", said(&output));
    let starts: Vec<usize> = shelf.sent.lock().unwrap().iter().filter(|(name, _)| name == FILE).map(|(_, first)| *first).collect();
    assert_eq!(starts, [0, shelf.files[FILE].len() / 2]);
}

#[tokio::test]
async fn a_damaged_file_is_refused_and_fetched_anew_the_next_time() {
    const FILE: &str = "text_encoder/model.safetensors";
    for file in [FILE, "unet/config.json"] {
        let (home, shelf) = (tempfile::tempdir().unwrap(), Arc::new(shelf()));
        *shelf.damaged.lock().unwrap() = Some(file);
        let url = spawn_hub(shelf.clone()).await;
        let output = pull(&url, home.path(), &[], None).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(file) && said(&output).contains("checksum"), "{}", said(&output));
        *shelf.damaged.lock().unwrap() = None;
        let output = pull(&url, home.path(), &[], None).await;
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(shelf.names_sent().iter().filter(|name| *name == file).count(), 2);
    }
}

#[tokio::test]
async fn a_gated_model_needs_its_token_and_an_unknown_one_is_named() {
    let (home, shelf) = (tempfile::tempdir().unwrap(), Shelf { token: Some("hf_secret"), ..shelf() });
    let url = spawn_hub(Arc::new(shelf)).await;
    for token in [None, Some("hf_wrong")] {
        let output = pull(&url, home.path(), &[], token).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("HF_TOKEN"), "{}", said(&output));
    }
    let output = pull(&url, home.path(), &[], Some("hf_secret")).await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(!said(&output).contains("hf_secret"));
    let output = pull(&url, home.path(), &["--revision", "v2"], Some("hf_secret")).await;
    assert!(said(&output).contains("not on the hub"), "{}", said(&output));
}

#[tokio::test]
async fn of_several_checkpoints_the_named_one_is_fetched() {
    let mut shelf = Shelf::default();
    for name in ["base.safetensors", "refiner.safetensors", "base.ckpt"] {
        shelf.files.insert(name.to_owned(), name.as_bytes().to_vec());
    }
    let (home, shelf) = (tempfile::tempdir().unwrap(), Arc::new(shelf));
    let url = spawn_hub(shelf.clone()).await;
    let output = pull(&url, home.path(), &[], None).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("base.safetensors, refiner.safetensors"), "{}", said(&output));
    let output = pull(&url, home.path(), &["--file", "refiner.safetensors"], None).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(shelf.names_sent(), ["refiner.safetensors"]);
    let output = pull(&url, home.path(), &["--file", "base.ckpt"], None).await;
    assert_eq!(output.status.code(), Some(2));
}
