//! Products of 8-bit floats, for requests that ask for them and models that have the weights.

use std::path::Path;

use easel::{config::ModelConfig, domain::decode_rgb};
use serde_json::{Value, json};

use crate::support::{TestApp, json_of, request};

/// The demo model with fp8 weights, the same without, and the small Stable Diffusion XL and its refiner, of which the refiner has none.
async fn app() -> TestApp {
    TestApp::with(|config| {
        let golden = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        let exact = ModelConfig { name: "exact".to_owned(), ..config.models[0].clone() };
        config.models[0].fp8_linears = true;
        config.models.push(exact);
        config.models.push(ModelConfig { fp8_linears: true, ..ModelConfig::new("tiny-sdxl", golden("tiny-sdxl")) });
        config.models.push(ModelConfig::new("tiny-sdxl-refiner", golden("tiny-sdxl-refiner")));
    })
    .await
}

fn house(fp8_linears: bool) -> Value {
    let body = json!({"prompt": "a red house", "seed": 7, "num_inference_steps": 12, "width": 128, "height": 128});
    let mut body = request(body);
    body["fp8_linears"] = json!(fp8_linears);
    body
}

async fn painted(app: &TestApp, body: &Value) -> Vec<u8> {
    let job = app.paint(body).await;
    assert_eq!(job["request"]["fp8_linears"], body["fp8_linears"]);
    decode_rgb(&app.picture(&job, 0).await).unwrap().into_raw()
}

/// Peak signal-to-noise ratio in decibels.
fn psnr(picture: &[u8], exact: &[u8]) -> f64 {
    let squares: f64 = picture.iter().zip(exact).map(|(&a, &b)| f64::from(a.abs_diff(b)).powi(2)).sum();
    10.0 * (255.0_f64.powi(2) * exact.len() as f64 / squares).log10()
}

#[tokio::test]
async fn products_in_fp8_are_echoed_and_make_a_picture_that_is_close_to_the_exact_one() {
    let app = app().await;
    let (exact, fp8) = (painted(&app, &house(false)).await, painted(&app, &house(true)).await);
    assert!(fp8 != exact, "nothing was rounded");
    let fidelity = psnr(&fp8, &exact);
    assert!(fidelity > 25.0, "{fidelity} dB");
    let mut other = house(false);
    other["model"] = json!("exact");
    assert_eq!(painted(&app, &other).await, exact, "weights that nobody asks for change nothing");
    app.finish().await;
}

#[tokio::test]
async fn a_model_without_fp8_weights_says_so_and_refuses_them() {
    let app = app().await;
    // Painted with, they have been loaded and measured.
    for model in ["demo", "exact"] {
        app.paint(&request(json!({"model": model}))).await;
    }
    let models = json_of(app.get("/v1/models").await, 200).await["models"].clone();
    let takes = |place: usize| !models[place]["unsupported_fields"].as_array().unwrap().contains(&json!("fp8_linears"));
    assert_eq!([takes(0), takes(1), takes(2), takes(3)], [true, false, true, false]);
    let bytes = |place: usize| models[place]["weights_bytes"].as_u64().unwrap();
    assert_eq!(bytes(0) - bytes(1), 2_340_864, "a byte for each weight of the demo model's transformers but the prompt's");
    let mut body = house(true);
    body["model"] = json!("exact");
    let problem = json_of(app.post(&body).await, 422).await;
    assert_eq!(
        problem["errors"],
        json!([{
            "pointer": "/fp8_linears",
            "detail": "must be false: the model exact is served without fp8 weights (fp8_linears of its settings)",
        }])
    );
    let mut body = house(true);
    body["fp8_linears"] = json!("yes");
    let problem = json_of(app.post(&body).await, 422).await;
    assert_eq!(problem["errors"][0]["detail"], "must be true or false, got \"yes\"");
    app.finish().await;
}

#[tokio::test]
async fn a_refiner_without_fp8_weights_goes_on_exactly() {
    let app = app().await;
    let body = |more: Value| {
        let mut body = json!({"model": "tiny-sdxl", "refiner": "tiny-sdxl-refiner", "seed": 3, "num_inference_steps": 4});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request(body)
    };
    let fp8 = painted(&app, &body(json!({"fp8_linears": true}))).await;
    assert!(fp8 != painted(&app, &body(json!({"fp8_linears": false}))).await);
    app.finish().await;
}
