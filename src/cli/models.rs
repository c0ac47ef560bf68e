//! `easel models`: what is served, and what is wrong with what is not.

use super::{CliError, answer::answer};
use crate::{
    app,
    config::Config,
    diffusion::{ModelFolder, describe_models},
    domain::ModelInfo,
};

/// Lists every model, the broken ones too; fails when there is one.
pub(super) fn models(config: &Config) -> Result<(), CliError> {
    let mut broken = Vec::new();
    for folder in &app::engine_settings(config).models {
        match describe_models(std::slice::from_ref(folder)) {
            Ok(infos) => infos.iter().try_for_each(|info| answer(describe(info, folder) + "\n"))?,
            Err(error) => broken.push(format!("model {:?} cannot be used: {error}", folder.name)),
        }
    }
    if broken.is_empty() { Ok(()) } else { Err(CliError::failed(broken.join("\neasel: "))) }
}

fn describe(info: &ModelInfo, folder: &ModelFolder) -> String {
    let ModelInfo { name, family, default_width, default_height, min_size, max_size, size_multiple, .. } = info;
    format!(
        "{name}\n  family     {family}\n  tasks      {}\n  size       {default_width} × {default_height} ({min_size} to {max_size} in steps of {size_multiple})\n  \
         steps      {}\n  scheduler  {}\n  guidance   {}\n  path       {}",
        info.tasks.iter().map(|task| task.name()).collect::<Vec<_>>().join(", "),
        info.default_num_inference_steps,
        info.default_scheduler,
        info.default_guidance_scale,
        folder.path.display()
    )
}
