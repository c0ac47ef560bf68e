//! What the server adds to a picture: HTTP, the queue, the store, PNG and a preview every five steps, against the engine's bare loop in
//! another process (`easel bench --lines`), in turns.

use std::{
    io::{BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};

use crate::{
    Options,
    painting::watch,
    server::{Server, free_port},
};

const ROUNDS: usize = 5;

/// `easel bench --lines`; killed when dropped.
struct Bare {
    process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Bare {
    fn start(settings: &[(&str, &str)], model: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_easel"));
        command.args(["bench", "--lines", "--model", model]).envs(settings.iter().copied());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut bare = Self { process, input, lines: BufReader::new(output).lines() };
        assert_eq!(bare.answer()["ready"], model);
        bare
    }

    fn seconds(&mut self, case: &Value) -> f64 {
        writeln!(self.input, "{case}").unwrap();
        let answer = self.answer();
        answer["seconds"].as_f64().unwrap_or_else(|| panic!("{answer}"))
    }

    fn answer(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One picture of the usual steps at a time.
pub(crate) async fn run(options: &Options, settings: &[(&str, &str)]) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path(), free_port(), settings).await;
    let http = reqwest::Client::new();
    // The names of `model_settings`, and of the settings' own model.
    let mut bare = Bare::start(settings, if options.model.is_some() { "model" } else { "demo" });
    let (size, steps) = (options.size, options.steps[1]);
    let case = json!({"part": "whole", "size": size, "steps": steps});
    let (mut served, mut alone) = (Vec::new(), Vec::new());
    for turn in 0..=ROUNDS {
        let body = json!({
            "prompt": format!("a photograph of a red house by a lake, number {turn}"),
            "width": size, "height": size, "num_inference_steps": steps, "guidance_scale": 7.5, "scheduler": "ddim", "preview_every": 5,
        });
        let (seconds, previews) = watch(&http, &server.url, &body).await;
        assert!(previews > 0 || steps <= 5, "what a preview costs is measured, too");
        let loop_alone = bare.seconds(&case);
        // The first turn warms both up.
        if turn > 0 {
            served.push(seconds);
            alone.push(loop_alone);
        }
    }
    let best = |seconds: &[f64]| seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let ratio = best(&served) / best(&alone);
    println!(
        "a picture of {steps} steps by the server ÷ by the bare loop: {ratio:.3} ({:.3} s, {:.3} s)",
        best(&served),
        best(&alone)
    );
    json!({"served_seconds": served, "bare_seconds": alone, "ratio": ratio})
}
