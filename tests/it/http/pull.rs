//! `easel pull`, against a hub of the test's own with the routes of huggingface.co.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    sync::Arc,
};

use crate::support::{COMMIT, Lie, Shelf, easel, run, sha256, spawn_hub};

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

/// Runs `easel pull owner/name` with the cache in `home`.
pub(super) async fn pull(url: &str, home: &Path, arguments: &'static [&'static str], token: Option<&str>) -> Output {
    let mut command = easel(home);
    command.args(["pull", "owner/name"]).args(arguments).env("HF_ENDPOINT", url).env("HF_HOME", home).env_remove("HF_TOKEN");
    command.envs(token.map(|token| ("HF_TOKEN", token)));
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap()
}

/// What it wrote to standard error.
pub(super) fn said(output: &Output) -> String {
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
    paint(home.path(), &output, &["generate", "a house", "--width", "64", "--height", "64"]);
}

/// Paints with the settings that a pull has printed.
fn paint(home: &Path, pulled: &Output, arguments: &[&str]) {
    let (settings, picture) = (home.join("easel.toml"), home.join("picture.png"));
    fs::write(&settings, &pulled.stdout).unwrap();
    let painted = run(easel(home).arg("--config").arg(&settings).args(arguments).args(["--steps", "1", "-o"]).arg(&picture));
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

/// Where the hub's cache has a file of the model `owner/name`.
pub(super) fn in_cache(home: &Path, file: &str) -> PathBuf {
    home.join("hub/models--owner--name").join(file)
}

#[tokio::test]
async fn a_part_of_an_earlier_fetch_is_gone_on_with_whatever_is_in_it() {
    const FILE: &str = "m.safetensors";
    let file: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let half = file.len() / 2;
    let with = |part: Vec<u8>| (part, file.clone());
    let (longer, wrong) = (with([&file[..], b"more"].concat()), with(vec![7; half]));
    for ((part, file), start, is_right) in [
        (with(file[..half].to_vec()), Some(half), true),
        (with(file.clone()), None, true),
        (longer, Some(0), true),
        (wrong, Some(half), false),
    ] {
        let home = tempfile::tempdir().unwrap();
        let place = in_cache(home.path(), &format!("blobs/{}.part", sha256(&file)));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(&place, part).unwrap();
        let shelf = Arc::new(Shelf::with(FILE, &file));
        let output = pull(&spawn_hub(shelf.clone()).await, home.path(), &[], None).await;
        assert_eq!(output.status.success(), is_right, "{}", said(&output));
        assert_eq!(shelf.sent.lock().unwrap().iter().map(|(_, first)| *first).collect::<Vec<_>>(), Vec::from_iter(start));
        let fetched = fs::read(in_cache(home.path(), &format!("snapshots/{COMMIT}/{FILE}"))).ok();
        assert_eq!((fetched, place.exists()), (is_right.then_some(file), false));
    }
}

#[tokio::test]
async fn a_hub_that_knows_no_ranges_sends_a_file_again_from_its_beginning() {
    const FILE: &str = "m.safetensors";
    let home = tempfile::tempdir().unwrap();
    let shelf = Arc::new(Shelf { lie: Some(Lie::Whole), ..Shelf::with(FILE, &[5; 10_000]) });
    *shelf.cut_once.lock().unwrap() = Some(FILE);
    let output = pull(&spawn_hub(shelf.clone()).await, home.path(), &[], None).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read(in_cache(home.path(), &format!("snapshots/{COMMIT}/{FILE}"))).unwrap(), [5; 10_000]);
}

#[tokio::test]
async fn the_cache_is_laid_out_as_the_hubs_other_clients_expect() {
    let (home, shelf) = (tempfile::tempdir().unwrap(), shelf());
    let file = shelf.files["unet/config.json"].clone();
    let output = pull(&spawn_hub(Arc::new(shelf)).await, home.path(), &[], None).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read_to_string(in_cache(home.path(), "refs/main")).unwrap(), COMMIT);
    let link = in_cache(home.path(), &format!("snapshots/{COMMIT}/unet/config.json"));
    assert!(fs::read_link(&link).unwrap().starts_with("../../../blobs"));
    assert_eq!(fs::read(link).unwrap(), file);
}

#[tokio::test]
async fn names_with_spaces_and_marks_are_fetched() {
    for file in [
        "my model (1).safetensors",
        "100%2e#?&;+=.safetensors",
        "模型/模型模型模型模型模型模型模型模型模型模型模型模型.safetensors",
    ] {
        let (home, shelf) = (tempfile::tempdir().unwrap(), Arc::new(Shelf::with(file, b"weights")));
        let output = pull(&spawn_hub(shelf.clone()).await, home.path(), &[], None).await;
        assert!(output.status.success(), "{file}: {}", said(&output));
        assert_eq!(shelf.names_sent(), [file]);
        assert_eq!(fs::read(in_cache(home.path(), &format!("snapshots/{COMMIT}/{file}"))).unwrap(), b"weights");
    }
}

#[tokio::test]
async fn a_model_without_text_is_pulled_from_beside_its_index_and_paints() {
    let mut shelf = Shelf::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny-ddpm"));
    let name = |file: &str| file.trim_start_matches("unet/").trim_start_matches("scheduler/").to_owned();
    shelf.files = std::mem::take(&mut shelf.files).into_iter().map(|(file, bytes)| (name(&file), bytes)).collect();
    let home = tempfile::tempdir().unwrap();
    let output = pull(&spawn_hub(Arc::new(shelf)).await, home.path(), &[], None).await;
    assert!(output.status.success(), "{}", said(&output));
    paint(home.path(), &output, &["generate", "--width", "32", "--height", "32"]);
}

#[tokio::test]
async fn a_part_without_weights_that_are_read_ends_the_pull_with_its_name() {
    for part in ["unet", "vae", "text_encoder"] {
        let (home, mut shelf) = (tempfile::tempdir().unwrap(), shelf());
        shelf.files.retain(|name, _| !name.starts_with(&format!("{part}/")));
        shelf.files.insert(format!("{part}/config.json"), b"{}".to_vec());
        shelf.files.insert(format!("{part}/diffusion_pytorch_model.bf16.safetensors"), b"weights".to_vec());
        let output = pull(&spawn_hub(Arc::new(shelf)).await, home.path(), &[], None).await;
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]));
        assert!(said(&output).contains(&format!("{part}: no weights")) && said(&output).contains("bf16"), "{}", said(&output));
    }
}

#[tokio::test]
async fn two_pulls_at_once_fetch_a_file_once() {
    let (home, shelf) = (tempfile::tempdir().unwrap(), Arc::new(Shelf::with("m.safetensors", &[5; 1_000_000])));
    let url = spawn_hub(shelf.clone()).await;
    let (one, other) = tokio::join!(pull(&url, home.path(), &[], None), pull(&url, home.path(), &[], None));
    assert!(one.status.success() && other.status.success(), "{} {}", said(&one), said(&other));
    assert_eq!((one.stdout, shelf.names_sent()), (other.stdout, vec!["m.safetensors".to_owned()]));
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
    let output = pull(&url, home.path(), &[], Some("hf_\nsecret")).await;
    assert_eq!(output.status.code(), Some(2));
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

#[tokio::test]
async fn a_pulled_checkpoint_paints_with_the_settings_that_pull_prints() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("tiny.safetensors");
    let made = run(easel(home.path()).args(["convert", "tests/golden/tiny-sd1"]).arg(&file));
    assert!(made.status.success(), "{}", said(&made));
    let shelf = Arc::new(Shelf::with("models/tiny.safetensors", &fs::read(&file).unwrap()));
    let output = pull(&spawn_hub(shelf).await, home.path(), &[], None).await;
    assert!(output.status.success(), "{}", said(&output));
    paint(home.path(), &output, &["generate", "a house", "--width", "64", "--height", "64"]);
}
