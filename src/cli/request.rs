//! From the command line to a request: as the JSON body that the API takes, so that the rules are the API's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{CliError, generate::GenerateArgs};
use crate::domain::{FieldError, MAX_RANDOM_SEED, ModelInfo, PictureFormat, Submission};

/// Fields of the API that have another name on the command line.
const RENAMED: [(&str, &str); 1] = [("num_inference_steps", "steps")];

/// Parses the arguments against the models; a picture's file may have `max_bytes` bytes. `format` is that of arguments which name none.
pub(super) fn parse(
    arguments: &GenerateArgs,
    format: Option<PictureFormat>,
    models: &[ModelInfo],
    max_bytes: usize,
) -> Result<Submission, CliError> {
    let mut body = body(arguments, max_bytes)?;
    if let Some(format) = format {
        body.entry("output_format").or_insert_with(|| format.name().into());
    }
    let body = Value::Object(body);
    Submission::parse(body, models, rand::random_range(0..=MAX_RANDOM_SEED)).map_err(|errors| usage(&errors, &arguments.fields))
}

fn body(arguments: &GenerateArgs, max_bytes: usize) -> Result<Map<String, Value>, CliError> {
    let text = |text: &Option<String>| text.clone().map(Value::String);
    let read = |option, file: &Option<PathBuf>| file.as_deref().map(|file| read_base64(option, file, max_bytes)).transpose();
    let (image, mask_image) = (read("--image", &arguments.image)?, read("--mask-image", &arguments.mask_image)?);
    let fields = [
        ("prompt", text(&arguments.prompt)),
        ("model", text(&arguments.model)),
        ("negative_prompt", text(&arguments.negative_prompt)),
        ("width", arguments.width.clone()),
        ("height", arguments.height.clone()),
        ("num_inference_steps", arguments.steps.clone()),
        ("guidance_scale", arguments.guidance_scale.clone()),
        ("scheduler", text(&arguments.scheduler)),
        ("seed", arguments.seed.clone()),
        ("noise_source", text(&arguments.noise_source)),
        ("num_images", arguments.num_images.clone()),
        ("image", image.map(Value::String)),
        ("mask_image", mask_image.map(Value::String)),
        ("mask_blur", arguments.mask_blur.clone()),
        ("image_guidance_scale", arguments.image_guidance_scale.clone()),
        ("strength", arguments.strength.clone()),
        ("output_format", text(&arguments.output_format)),
        ("output_quality", arguments.output_quality.clone()),
    ];
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let mut body: Map<String, Value> = given.collect();
    for (name, value) in &arguments.fields {
        if body.insert(name.clone(), value.clone()).is_some() {
            return Err(CliError::Usage(format!("--set {name}: is given twice")));
        }
    }
    Ok(body)
}

fn read_base64(option: &str, file: &Path, max_bytes: usize) -> Result<String, CliError> {
    let problem = |problem: String| CliError::Usage(format!("{option} {}: {problem}", file.display()));
    let length = fs::metadata(file).map_err(|error| problem(error.to_string()))?.len();
    if length > max_bytes as u64 {
        return Err(problem(format!("must have at most {max_bytes} bytes, got {length}")));
    }
    let bytes = fs::read(file).map_err(|error| problem(error.to_string()))?;
    Ok(STANDARD.encode(bytes))
}

/// One line for each bad field, by the name of its option.
fn usage(errors: &[FieldError], set: &[(String, Value)]) -> CliError {
    let lines: Vec<String> = errors.iter().map(|error| format!("{}: {}", option(&error.pointer, set), error.detail)).collect();
    CliError::Usage(lines.join("\neasel: "))
}

fn option(pointer: &str, set: &[(String, Value)]) -> String {
    match pointer.trim_start_matches('/') {
        field if set.iter().any(|(name, _)| field.split('/').next() == Some(name)) => format!("--set {field}"),
        "prompt" => "PROMPT".to_owned(),
        field => {
            let renamed = RENAMED.iter().find(|(name, _)| *name == field).map_or(field, |(_, option)| option);
            format!("--{}", renamed.replace('_', "-"))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        app::engine_settings,
        config::Config,
        diffusion::describe_models,
        domain::{Encoding, PromptSyntax},
    };

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: GenerateArgs,
    }

    fn parse_line(line: &[&str]) -> Result<Submission, String> {
        let settings = engine_settings(&Config::load(None).map_err(|error| error.to_string())?);
        let models = describe_models(&settings.models).map_err(|error| error.to_string())?;
        let line = Line::try_parse_from([&["generate"], line].concat()).map_err(|error| error.to_string())?;
        parse(&line.arguments, Some(PictureFormat::WebP), &models, 1 << 20).map_err(|error| error.to_string())
    }

    #[test]
    fn options_become_the_fields_of_the_api() {
        let line = ["a cat", "--steps", "9", "--scheduler", "euler_karras", "--seed", "3", "-n", "2", "--guidance-scale", "1.5"];
        let request = parse_line(&line).unwrap().request;
        assert_eq!((request.num_inference_steps, request.seed, request.num_images), (9, 3, 2));
        assert_eq!((request.scheduler.as_str(), request.guidance_scale), ("euler_karras", 1.5));
        assert_eq!((request.width, request.height, request.negative_prompt), (128, 128, None));
    }

    #[test]
    fn every_field_of_the_api_can_be_set_and_is_named_so_when_it_is_wrong() {
        let line =
            ["(a:1.2) cat", "--set", "prompt_syntax=weighted", "--set", "guidance_interval=[0.1, 0.8]", "--set", "clip_skip=2"];
        let request = parse_line(&line).unwrap().request;
        assert_eq!((request.prompt_syntax, request.guidance_interval), (PromptSyntax::Weighted, [0.1, 0.8]));
        assert_eq!(request.clip_skip, Some(2));
        for (set, expected) in
            [("clip_skip=99", "--set clip_skip: "), ("no_such=1", "--set no_such: "), ("clip_skip", "FIELD=VALUE")]
        {
            let error = parse_line(&["a cat", "--set", set]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let error = parse_line(&["a cat", "--seed", "1", "--set", "seed=2"]).unwrap_err();
        assert!(error.contains("--set seed: is given twice"), "{error}");
    }

    #[test]
    fn a_format_that_is_named_wins_over_the_files_own() {
        let output = |line: &[&str]| parse_line(line).unwrap().request.output;
        assert_eq!(output(&["a cat"]), Encoding::of(PictureFormat::WebP));
        let line = ["a cat", "--output-format", "jpeg", "--output-quality", "33"];
        assert_eq!(output(&line), Encoding { format: PictureFormat::Jpeg, quality: 33 });
    }

    #[test]
    fn every_bad_option_is_named_as_it_was_typed() {
        let error = parse_line(&["a cat", "--width", "127", "--steps", "0", "--seed", "-1"]).unwrap_err();
        for part in ["--width: must be a multiple of 8", "got 127", "--steps: must be a whole number from 1 to 150", "--seed: "] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_picture_that_is_absent_or_too_large_is_refused_before_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("large.png");
        fs::File::create(&file).unwrap().set_len(2 << 20).unwrap();
        let error = parse_line(&["a cat", "--image", file.to_str().unwrap()]).unwrap_err();
        assert!(error.contains("must have at most 1048576 bytes, got 2097152"), "{error}");
        for option in ["--image", "--mask-image"] {
            let error = parse_line(&["a cat", option, "no-such-file.png"]).unwrap_err();
            assert!(error.contains(&format!("{option} no-such-file.png: ")), "{error}");
        }
    }

    #[test]
    fn a_mask_goes_with_its_image_into_the_request() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/mask-disc.png");
        let request = parse_line(&["a cat", "--image", file, "--mask-image", file, "--mask-blur", "4"]).unwrap().request;
        let inpainting = request.inpainting.unwrap();
        assert_eq!((inpainting.mask_image.width, inpainting.mask_blur), (128, 4));
        let error = parse_line(&["a cat", "--image", file, "--image-guidance-scale", "2"]).unwrap_err();
        assert!(error.contains("--image-guidance-scale: has no meaning to the model demo"), "{error}");
    }
}
