//! Masks, and models that are instructed.

use super::*;

#[test]
fn a_mask_makes_an_image_inpainting_at_full_strength() {
    let body = json!({"prompt": "a", "image": pixel(), "mask_image": pixel()});
    let submission = parse(body).unwrap();
    let (img2img, inpainting) = (submission.request.img2img.clone().unwrap(), submission.request.inpainting.clone().unwrap());
    assert_eq!((img2img.strength, inpainting.mask_blur, submission.request.effective_steps()), (1.0, 0, 25));
    assert!(submission.request.begins_with_noise());
    assert_eq!((submission.request.inputs().count(), submission.inputs.iter().count()), (2, 2));
    let stored = serde_json::to_string(&submission.request).unwrap();
    assert_eq!(serde_json::from_str::<easel::domain::GenerationRequest>(&stored).unwrap(), submission.request);
    let weaker = parse(json!({"prompt": "a", "image": pixel(), "mask_image": pixel(), "strength": 0.6})).unwrap().request;
    assert_eq!((weaker.effective_steps(), weaker.begins_with_noise()), (15, false));
}

#[test]
fn a_mask_blur_without_a_mask_is_a_warning() {
    let submission = parse(json!({"prompt": "a", "image": pixel(), "mask_blur": 4})).unwrap();
    assert_eq!((submission.request.inpainting, submission.warnings.len()), (None, 1));
}

#[test]
fn an_instruct_pix2pix_model_takes_a_picture_and_a_scale_for_it_and_no_mask() {
    let model = ModelInfo {
        tasks: vec![Task::InstructPix2pix],
        unsupported_fields: vec!["strength", "mask_image", "mask_blur"],
        ..model_info("edit")
    };
    let parse = |body: Value| Submission::parse(body, std::slice::from_ref(&model), RANDOM_SEED);
    let request = parse(json!({"prompt": "make it snow", "image": pixel()})).unwrap().request;
    assert_eq!((request.image_guidance_scale, request.effective_steps()), (Some(1.5), 25));
    let request = parse(json!({"prompt": "make it snow", "image": pixel(), "image_guidance_scale": 2})).unwrap().request;
    assert_eq!(request.image_guidance_scale, Some(2.0));
    let body = json!({"prompt": "a", "image": pixel(), "image_guidance_scale": 2, "guidance_scale": 1});
    let warnings = parse(body).unwrap().warnings;
    assert!(warnings[0].contains("image_guidance_scale has no effect"), "{warnings:?}");
    for (body, pointer, detail) in [
        (json!({"prompt": "a"}), "/image", "is required: the model edit changes a picture"),
        (json!({"prompt": "a", "image": pixel(), "mask_image": pixel()}), "/mask_image", "it changes the whole picture"),
        (json!({"prompt": "a", "image": pixel(), "strength": 0.5}), "/strength", "it runs all steps"),
        (json!({"prompt": "a", "image": pixel(), "image_guidance_scale": 0.9}), "/image_guidance_scale", "from 1 to 50, got 0.9"),
    ] {
        let errors = parse(body).unwrap_err();
        assert_eq!((errors.len(), errors[0].pointer.as_str()), (1, pointer), "{errors:?}");
        assert!(errors[0].detail.contains(detail), "{errors:?}");
    }
}
