//! Configs from the shapes of tensors in diffusers' names. What shapes cannot tell (heads, groups, activations) is as published.

use serde_json::{Value, json};

use super::{original::count, stored::Tensors};

/// The channels of one head where projections are linear, as in SD 2 and SDXL, and in every text encoder.
const HEAD_CHANNELS: usize = 64;

/// One side of a tensor; 0 when it is not there, which the network's own check then refuses by name.
fn side(tensors: &Tensors, name: &str, place: usize) -> usize {
    tensors.get(name).and_then(|tensor| tensor.shape().get(place)).copied().unwrap_or_default()
}

fn has(tensors: &Tensors, prefix: &str) -> bool {
    tensors.range(prefix.to_owned()..).next().is_some_and(|(name, _)| name.starts_with(prefix))
}

fn count_of(tensors: &Tensors, prefix: &str) -> usize {
    count(tensors.keys().map(String::as_str), prefix)
}

/// The channels of the text that a UNet attends to.
pub(super) fn attended_channels(unet: &Tensors) -> Option<usize> {
    let keys = unet.iter().find(|(name, _)| name.ends_with(".attn2.to_k.weight"));
    keys.and_then(|(_, keys)| keys.shape().get(1)).copied()
}

/// Whether a UNet's transformers begin with a matrix and not with a 1 × 1 convolution.
pub(super) fn has_linear_projections(unet: &Tensors) -> bool {
    unet.iter().any(|(name, projection)| name.ends_with(".attentions.0.proj_in.weight") && projection.shape().len() == 2)
}

/// `unet/config.json` of a `UNet2DConditionModel`; `sample_size` is in latent cells.
pub(super) fn unet_config(tensors: &Tensors, sample_size: u32) -> Value {
    let blocks = count_of(tensors, "down_blocks.");
    let channels: Vec<usize> =
        (0..blocks).map(|block| side(tensors, &format!("down_blocks.{block}.resnets.0.conv1.weight"), 0)).collect();
    let layers: Vec<usize> = (0..blocks).map(|block| count_of(tensors, &format!("down_blocks.{block}.resnets."))).collect();
    let kinds = |prefix: &str, kind: &str| -> Vec<String> {
        let attends = |block: usize| has(tensors, &format!("{prefix}_blocks.{block}.attentions."));
        (0..blocks).map(|block| if attends(block) { format!("CrossAttn{kind}Block2D") } else { format!("{kind}Block2D") }).collect()
    };
    let is_linear = has_linear_projections(tensors);
    let heads = |channels: &usize| if is_linear { (channels / HEAD_CHANNELS).max(1) } else { 8 };
    let added = side(tensors, "add_embedding.linear_1.weight", 1);
    let guidance = side(tensors, "time_embedding.cond_proj.weight", 1);
    json!({
        "_class_name": "UNet2DConditionModel",
        "sample_size": sample_size,
        "in_channels": side(tensors, "conv_in.weight", 1),
        "out_channels": side(tensors, "conv_out.weight", 0),
        "block_out_channels": channels,
        "layers_per_block": one_or_list(&layers),
        "down_block_types": kinds("down", "Down"),
        "up_block_types": kinds("up", "Up"),
        "mid_block_type": if has(tensors, "mid_block.") { json!("UNetMidBlock2DCrossAttn") } else { Value::Null },
        "attention_head_dim": channels.iter().map(heads).collect::<Vec<_>>(),
        "transformer_layers_per_block": one_or_list(&transformer_layers(tensors, blocks)),
        "cross_attention_dim": attended_channels(tensors).unwrap_or_default(),
        "use_linear_projection": is_linear,
        "time_embedding_dim": side(tensors, "time_embedding.linear_1.weight", 0),
        "time_cond_proj_dim": if guidance > 0 { json!(guidance) } else { Value::Null },
        "addition_embed_type": if added > 0 { json!("text_time") } else { Value::Null },
        "addition_time_embed_dim": if added > 0 { json!(256) } else { Value::Null },
        "projection_class_embeddings_input_dim": if added > 0 { json!(added) } else { Value::Null },
    })
}

/// Transformer layers of each block; a block without any has one, as published configs say, and the last one's are the middle's.
fn transformer_layers(tensors: &Tensors, blocks: usize) -> Vec<usize> {
    let layers = |place: &str| count_of(tensors, &format!("{place}.attentions.0.transformer_blocks.")).max(1);
    let mut found: Vec<usize> = (0..blocks).map(|block| layers(&format!("down_blocks.{block}"))).collect();
    if let Some(last) = found.last_mut() {
        *last = layers("mid_block");
    }
    found
}

/// Lists are for models whose blocks differ, and diffusers' own `from_single_file` wants a number where it can be one.
fn one_or_list(values: &[usize]) -> Value {
    match values.split_first() {
        Some((first, rest)) if rest.iter().all(|value| value == first) => json!(first),
        _ => json!(values),
    }
}

/// `vae/config.json` of an `AutoencoderKL`.
pub(super) fn vae_config(tensors: &Tensors, scaling_factor: f64) -> Value {
    let blocks = count_of(tensors, "encoder.down_blocks.");
    let channels: Vec<usize> =
        (0..blocks).map(|block| side(tensors, &format!("encoder.down_blocks.{block}.resnets.0.conv1.weight"), 0)).collect();
    json!({
        "_class_name": "AutoencoderKL",
        "in_channels": side(tensors, "encoder.conv_in.weight", 1),
        "out_channels": side(tensors, "decoder.conv_out.weight", 0),
        "latent_channels": side(tensors, "decoder.conv_in.weight", 1),
        "block_out_channels": channels,
        "down_block_types": vec!["DownEncoderBlock2D"; blocks],
        "up_block_types": vec!["UpDecoderBlock2D"; blocks],
        "layers_per_block": count_of(tensors, "encoder.down_blocks.0.resnets."),
        "mid_block_add_attention": has(tensors, "encoder.mid_block.attentions."),
        "use_quant_conv": has(tensors, "quant_conv."),
        "use_post_quant_conv": has(tensors, "post_quant_conv."),
        "scaling_factor": scaling_factor,
        "force_upcast": true,
    })
}

/// `config.json` of a `CLIPTextModel`, with or without projection.
pub(super) fn text_config(tensors: &Tensors, hidden_act: &str) -> Value {
    let prefix = if has(tensors, "text_model.") { "text_model." } else { "" };
    let of = |name: &str, place| side(tensors, &format!("{prefix}{name}"), place);
    let width = of("embeddings.token_embedding.weight", 1);
    let projection = side(tensors, "text_projection.weight", 0);
    json!({
        "architectures": [if projection > 0 { "CLIPTextModelWithProjection" } else { "CLIPTextModel" }],
        "model_type": "clip_text_model",
        "vocab_size": of("embeddings.token_embedding.weight", 0),
        "hidden_size": width,
        "max_position_embeddings": of("embeddings.position_embedding.weight", 0),
        "intermediate_size": of("encoder.layers.0.mlp.fc1.weight", 0),
        "num_hidden_layers": count_of(tensors, &format!("{prefix}encoder.layers.")),
        "num_attention_heads": (width / HEAD_CHANNELS).max(1),
        "projection_dim": if projection > 0 { projection } else { width },
        "hidden_act": hidden_act,
        "layer_norm_eps": 1e-5,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 1,
    })
}
