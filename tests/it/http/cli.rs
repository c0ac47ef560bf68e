//! The terminal: what `easel` paints, prints and refuses.

use std::{ffi::OsStr, fs, path::Path, process::Output};

use serde_json::json;

use crate::support::{easel, house_png, house_url, model_with_an_unserved_scheduler, request, run, spawn_app};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs `easel models` under a variable that must be refused; answers what it says.
fn refused(variable: &str, value: impl AsRef<OsStr>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = run(easel(folder.path()).arg("models").env(variable, value));
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(output.stdout.is_empty());
    said(&output)
}

fn config_file(folder: &Path, text: &str) -> std::path::PathBuf {
    let file = folder.join("easel.toml");
    fs::write(&file, text).unwrap();
    file
}

#[tokio::test]
async fn the_terminal_paints_the_same_bytes_as_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let (file, house) = (folder.path().join("house.png"), folder.path().join("in.png"));
    fs::write(&house, house_png()).unwrap();
    let small = ["generate", "a red house", "--steps", "2", "--width", "64", "--height", "64", "--seed", "7"];
    let text = run(easel(folder.path()).args(small).arg("-o").arg(&file));
    assert!(text.status.success(), "{}", said(&text));
    let several = folder.path().join("several.png");
    let image = run(easel(folder.path()).args(small).args(["-n", "2", "--image"]).arg(house).arg("-o").arg(&several));
    assert!(image.status.success(), "{}", said(&image));
    let webp = folder.path().join("house.webp");
    let lossy = run(easel(folder.path()).args(small).args(["--output-quality", "60"]).arg("-o").arg(&webp));
    assert!(lossy.status.success(), "{}", said(&lossy));
    assert!(!folder.path().join("easel.db").exists(), "painting in the terminal needs no store");
    let app = spawn_app().await;
    let job = app.paint(&request(json!({}))).await;
    assert!(fs::read(&file).unwrap() == app.picture(&job, 0).await);
    let job = app.paint(&request(json!({"output_format": "webp", "output_quality": 60}))).await;
    assert!(fs::read(&webp).unwrap() == app.picture(&job, 0).await);
    let job = app.paint(&request(json!({"num_images": 2, "image": house_url()}))).await;
    for index in 0..2 {
        assert!(fs::read(folder.path().join(format!("several-{index}.png"))).unwrap() == app.picture(&job, index).await);
    }
    app.finish().await;
}

#[test]
fn a_wrong_command_line_ends_with_2_and_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, named) in [
        (vec!["paint"], "paint"),
        (vec!["generate"], "PROMPT: is required"),
        (vec!["generate", "a", "--colour", "red"], "--colour"),
        (vec!["generate", "a", "--width", "127"], "--width: must be a multiple of 8 from 64 to 2048, got 127"),
        (vec!["generate", "a", "--steps", "0"], "--steps: must be a whole number from 1 to 150, got 0"),
        (vec!["generate", "a", "--steps", "many"], "many"),
        (vec!["generate", "a", "--scheduler", "magic"], "--scheduler: must be one of ddim"),
        (vec!["generate", "a", "-o", "a.gif"], "--output a.gif: must end in .png, .jpg, .jpeg or .webp"),
        (vec!["generate", "a", "-o", "a.jpg", "--output-format", "webp"], "--output ends in .jpg, but --output-format is webp"),
        (vec!["generate", "a", "--output-quality", "0"], "--output-quality: must be a whole number from 1 to 100, got 0"),
        (vec!["generate", "a", "--image", "no-such-file.png"], "--image no-such-file.png"),
        (vec!["serve", "--config", "no-such-file.toml"], "no configuration file no-such-file.toml"),
    ] {
        let output = run(easel(folder.path()).args(&arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(named), "{arguments:?}: {}", said(&output));
    }
}

#[test]
fn the_models_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(easel(folder.path()).arg("models"));
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("demo\n") && text.contains("128 × 128 (64 to 2048 in steps of 8)") && text.contains("ddim"), "{text}");
}

#[test]
fn what_the_user_should_know_about_a_model_is_said_in_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("magic");
    model_with_an_unserved_scheduler(&model);
    let file = config_file(folder.path(), &format!("[[models]]\nname = \"magic\"\npath = {model:?}\n"));
    let picture = folder.path().join("a.png");
    let paint = ["generate", "a", "--steps", "1", "--width", "64", "--height", "64", "-o", picture.to_str().unwrap()];
    for arguments in [&["models"][..], &paint] {
        let output = run(easel(folder.path()).args(arguments).arg("--config").arg(&file));
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("MagicScheduler") && said(&output).contains("its default is ddim"), "{}", said(&output));
    }
}

#[test]
fn a_model_folder_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = config_file(folder.path(), "[[models]]\nname = \"lost\"\npath = \"/nowhere/lost\"\n");
    for command in ["models", "serve"] {
        let output = run(easel(folder.path()).arg(command).arg("--config").arg(&file));
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("/nowhere/lost"), "{command}: {}", said(&output));
    }
}

#[test]
fn a_setting_that_does_not_exist_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = config_file(folder.path(), "[server]\nbnid = \"127.0.0.1:0\"\n");
    let by_file = refused("EASEL_CONFIG", &file);
    assert!(by_file.contains("bnid") && by_file.contains("easel.toml"), "{by_file}");
    let section = refused("EASEL__SREVER__BIND", "127.0.0.1:0");
    assert!(section.to_lowercase().contains("srever"), "{section}");
    let key = refused("EASEL__SERVER__BNID", "127.0.0.1:0");
    assert!(key.to_lowercase().contains("bnid"), "{key}");
}

#[test]
fn a_setting_with_a_wrong_value_is_named() {
    for (variable, value, named) in [
        ("EASEL__SERVER__MAX_BODY_BYTES", "many", "server.max_body_bytes"),
        ("EASEL__SERVER__MAX_BODY_BYTES", "-1", "server.max_body_bytes"),
        ("EASEL__DEVICE__DTYPE", "float8", "device.dtype"),
        ("EASEL__DEVICE__BATCH_INVARIANT", "perhaps", "device.batch_invariant"),
        ("EASEL__DISPATCH__MAX_CANVASES", "0", "dispatch.max_canvases"),
        ("EASEL__DISPATCH__LEASE_SECONDS", "0", "dispatch.lease_seconds"),
        ("EASEL__SERVER__KEEP_ALIVE_SECONDS", "0", "server.keep_alive_seconds: must be from 1 to 3600, got 0"),
        ("EASEL__LOG__FORMAT", "xml", "log.format"),
    ] {
        let text = refused(variable, value);
        assert!(text.to_lowercase().contains(named), "{variable}={value}: {text}");
    }
}

#[test]
fn a_log_level_that_does_not_exist_is_named_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(easel(folder.path()).arg("serve").env("EASEL__LOG__LEVEL", "inof"));
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("log.level") && said(&output).contains("inof"), "{}", said(&output));
}

#[test]
fn a_device_that_is_not_there_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    for (name, part) in [("cuda:99", "cuda:99"), ("gpu", "gpu")] {
        for arguments in [vec!["serve"], vec!["generate", "a", "--steps", "1", "-o", "absent.png"]] {
            let output = run(easel(folder.path()).args(&arguments).env("EASEL__DEVICE__NAME", name));
            assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {}", said(&output));
            let last = said(&output).lines().last().unwrap_or_default().to_owned();
            assert!(last.contains(part) && last.starts_with("easel: "), "{arguments:?}: {}", said(&output));
        }
    }
}

#[test]
fn a_store_that_cannot_be_opened_is_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    for (variable, value, named) in [
        ("EASEL__STORE__URL", "postgres://user:secret@host/db", "[store] url must be sqlite://"),
        ("EASEL__PICTURES__URL", "s3://bucket", "[pictures] url must be a folder's path"),
        ("EASEL__SERVER__BIND", "nowhere", "server.bind: cannot listen on nowhere"),
    ] {
        let output = run(easel(folder.path()).arg("serve").env(variable, value));
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(named) && !said(&output).contains("secret"), "{}", said(&output));
    }
}

#[test]
fn migrating_makes_the_database_and_again_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for state in ["0001 jobs: applied now", "0001 jobs: applied before"] {
        let output = run(easel(folder.path()).arg("migrate"));
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(state) && text.contains("the job store is up to date"), "{text}");
    }
    assert!(folder.path().join("easel.db").exists());
}
