//! Pictures that come in with requests, honest and hostile.

use base64::{Engine, engine::general_purpose::STANDARD};
use easel::domain::{Encoding, PictureFormat, decode_rgb, encode_png, remake, sha256_hex};
use image::{
    ExtendedColorType, ImageEncoder, Rgb, RgbImage,
    codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder},
};
use serde_json::{Value, json};

use crate::{
    requests::{only_error, parse},
    support::parameters_of,
};

/// Red on the left, blue on the right.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) })
}

fn write<E: ImageEncoder>(encoder: E, picture: &RgbImage) {
    encoder.write_image(picture.as_raw(), picture.width(), picture.height(), ExtendedColorType::Rgb8).unwrap();
}

fn png_of(picture: &RgbImage) -> Vec<u8> {
    let mut file = Vec::new();
    write(PngEncoder::new(&mut file), picture);
    file
}

fn jpeg_of(picture: &RgbImage) -> Vec<u8> {
    let mut file = Vec::new();
    write(JpegEncoder::new(&mut file), picture);
    file
}

fn webp_of(picture: &RgbImage) -> Vec<u8> {
    let mut file = Vec::new();
    write(WebPEncoder::new_lossless(&mut file), picture);
    file
}

fn with_image(image: impl AsRef<[u8]>) -> Value {
    json!({"prompt": "a", "image": STANDARD.encode(image)})
}

fn image_error(image: impl AsRef<[u8]>) -> String {
    only_error(with_image(image), "/image")
}

#[test]
fn a_picture_makes_the_request_img2img_in_its_own_size() {
    let file = png_of(&picture(200, 100));
    let submission = parse(with_image(&file)).unwrap();
    let img2img = submission.request.img2img.clone().unwrap();
    assert_eq!((submission.request.width, submission.request.height), (200, 96));
    assert_eq!((img2img.image.width, img2img.image.height, img2img.strength), (200, 100, 0.8));
    assert_eq!((img2img.image.sha256.as_str(), img2img.image.content_type), (sha256_hex(&file).as_str(), PictureFormat::Png));
    assert_eq!((submission.request.effective_steps(), &*submission.inputs.image.unwrap().bytes), (20, file.as_slice()));
}

#[test]
fn a_size_that_is_asked_for_wins_over_the_pictures() {
    let mut body = with_image(png_of(&picture(200, 100)));
    body["width"] = json!(64);
    let request = parse(body).unwrap().request;
    assert_eq!((request.width, request.height), (64, 96));
}

#[test]
fn a_picture_larger_than_the_model_is_fitted_in_proportion() {
    let mut body = with_image(png_of(&picture(1024, 512)));
    body["model"] = json!("small");
    let request = parse(body).unwrap().request;
    assert_eq!((request.width, request.height), (256, 128));
}

#[test]
fn every_format_is_told_by_its_bytes_and_not_by_its_name() {
    let picture = picture(64, 64);
    for (file, format) in
        [(png_of(&picture), PictureFormat::Png), (jpeg_of(&picture), PictureFormat::Jpeg), (webp_of(&picture), PictureFormat::WebP)]
    {
        let url = format!("data:image/png;base64,{}", STANDARD.encode(file));
        let request = parse(json!({"prompt": "a", "image": url})).unwrap().request;
        assert_eq!(request.img2img.unwrap().image.content_type, format);
    }
}

#[test]
fn a_url_that_points_elsewhere_is_never_followed() {
    for url in ["http://127.0.0.1/a.png", "file:///etc/passwd", "data:image/png,abc"] {
        assert!(only_error(json!({"prompt": "a", "image": url}), "/image").starts_with("must be a PNG, JPEG or WebP"));
    }
}

#[test]
fn truncated_base64_is_refused() {
    let mut text = STANDARD.encode(png_of(&picture(64, 64)));
    text.truncate(text.len() / 8 * 4 + 1);
    assert!(only_error(json!({"prompt": "a", "image": text}), "/image").contains("base64 is damaged"));
}

#[test]
fn a_truncated_file_is_refused_in_every_format() {
    let noise = RgbImage::from_fn(96, 96, |x, y| Rgb([(x * 37 + y * 11) as u8, (x * y) as u8, (x ^ y) as u8]));
    for file in [png_of(&noise), jpeg_of(&noise), webp_of(&noise)] {
        for kept in [file.len() / 2, file.len() * 9 / 10, 40, 12] {
            let detail = image_error(&file[..kept]);
            assert!(detail.starts_with("must be a PNG, JPEG or WebP picture"), "{detail}");
        }
    }
}

#[test]
fn text_where_a_picture_should_be_is_refused() {
    assert!(image_error("a red house").contains("not a PNG, JPEG or WebP file"));
    assert!(image_error("").contains("not a PNG, JPEG or WebP file"));
    assert!(only_error(json!({"prompt": "a", "image": "a red house!"}), "/image").contains("base64 is damaged"));
}

#[test]
fn a_format_that_is_not_allowed_is_refused() {
    assert!(image_error(b"GIF89a\x01\0\x01\0\0\0\0;").contains("not a PNG, JPEG or WebP file"));
}

#[test]
fn a_png_that_claims_sixteen_hundred_million_pixels_is_refused_by_its_header() {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, 40_000, 40_000);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Sixteen);
    let mut writer = encoder.write_header().unwrap();
    writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c, 0x03, 0x00, 0x00, 0x00, 0x00, 0x01]).unwrap();
    drop(writer);
    let detail = image_error(file);
    assert!(detail.contains("at most 4096 × 4096 pixels") && detail.contains("40000 × 40000"), "{detail}");
}

#[test]
fn a_side_of_4096_pixels_is_allowed_and_one_more_is_not() {
    assert!(parse(with_image(png_of(&picture(4096, 64)))).is_ok());
    assert!(image_error(png_of(&picture(4097, 64))).contains("4097 × 64"));
}

#[test]
fn a_picture_is_turned_upright_by_its_exif() {
    // A TIFF header and one entry: orientation (0x0112) 6, "turn a quarter to the right".
    let exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
    let lying = picture(128, 64);
    let mut jpeg = Vec::new();
    let mut encoder = JpegEncoder::new_with_quality(&mut jpeg, 100);
    encoder.set_exif_metadata(exif.clone()).unwrap();
    write(encoder, &lying);
    let mut png = Vec::new();
    let mut encoder = PngEncoder::new(&mut png);
    encoder.set_exif_metadata(exif).unwrap();
    write(encoder, &lying);
    for file in [jpeg, png] {
        let request = parse(with_image(&file)).unwrap().request;
        assert_eq!((request.width, request.height), (64, 128));
        let upright = decode_rgb(&file).unwrap();
        let (top, bottom) = (upright.get_pixel(32, 8), upright.get_pixel(32, 120));
        assert!(top[0] > 200 && top[2] < 50 && bottom[2] > 200 && bottom[0] < 50, "{top:?} {bottom:?}");
    }
}

#[test]
fn a_jpeg_that_ends_inside_its_thumbnail_is_cut_short() {
    let mut file = jpeg_of(&picture(64, 64));
    let end = file.len() - 2;
    // A comment segment that holds an end-of-image marker, then the picture without its own.
    file.truncate(end);
    file.splice(2..2, [0xFF, 0xFE, 0, 4, 0xFF, 0xD9]);
    assert!(image_error(file).contains("cut short"));
}

#[test]
fn a_strength_that_leaves_no_step_is_answered_with_the_smallest_that_does() {
    let file = png_of(&picture(64, 64));
    for steps in 1..=150_u32 {
        let mut body = with_image(&file);
        body["num_inference_steps"] = json!(steps);
        body["strength"] = json!(0.006);
        let detail = only_error(body.clone(), "/strength");
        let smallest: f64 = detail.rsplit(' ').next().unwrap().parse().unwrap();
        body["strength"] = json!(smallest);
        assert_eq!(parse(body.clone()).unwrap().request.effective_steps(), 1, "{detail}");
        body["strength"] = json!(smallest - 0.0001);
        only_error(body, "/strength");
    }
}

#[test]
fn bad_steps_do_not_make_the_strength_wrong_too() {
    let mut body = with_image(png_of(&picture(64, 64)));
    body["num_inference_steps"] = json!(10_000);
    body["strength"] = json!(0.01);
    only_error(body, "/num_inference_steps");
}

#[test]
fn a_bad_picture_hides_no_other_error() {
    let body = json!({"prompt": "a", "image": "???", "strength": 3, "width": 1});
    let pointers: Vec<String> = parse(body).unwrap_err().into_iter().map(|error| error.pointer).collect();
    assert_eq!(pointers, ["/image", "/width", "/strength"]);
}

#[test]
fn a_png_that_was_written_reads_back_equal_with_its_parameters() {
    let picture = picture(104, 136);
    let file = encode_png(&picture, Some("a réd house\nSteps: 4")).unwrap();
    assert_eq!(decode_rgb(&file).unwrap(), picture);
    let reader = png::Decoder::new(std::io::Cursor::new(&file)).read_info().unwrap();
    let text = &reader.info().utf8_text[0];
    assert_eq!((text.keyword.as_str(), text.get_text().unwrap().as_str()), ("parameters", "a réd house\nSteps: 4"));
    assert_eq!(file, encode_png(&picture, Some("a réd house\nSteps: 4")).unwrap());
}

#[test]
fn prompts_of_emoji_that_no_jpeg_segment_can_hold_lose_their_end_and_nothing_else() {
    let settings = "\nSteps: 4, Seed: 7";
    let parameters = format!("{}\nNegative prompt: {}{settings}", "🏠".repeat(10_000), "赤".repeat(10_000));
    assert_eq!(read_back(PictureFormat::Jpeg, &parameters), parameters);
    let parameters = format!("{}\nNegative prompt: {}{settings}", "🏠".repeat(10_000), "🌧".repeat(10_000));
    let kept = read_back(PictureFormat::Jpeg, &parameters);
    let prompts = kept.strip_suffix(settings).expect("the settings are lost");
    assert!(parameters.starts_with(prompts) && prompts.encode_utf16().count() > 32_000);
    assert!(read_back(PictureFormat::Png, &parameters) == parameters);
}

/// What a picture's file says of the parameters that it was written with.
fn read_back(format: PictureFormat, parameters: &str) -> String {
    parameters_of(&Encoding::of(format).encode(&picture(64, 64), Some(parameters)).unwrap()).unwrap()
}

#[test]
fn a_thumbnail_of_a_very_wide_picture_has_a_row_of_pixels() {
    let wide = encode_png(&picture(2048, 8), None).unwrap();
    let small = decode_rgb(&remake(&wide, PictureFormat::Png, Some(16)).unwrap()).unwrap();
    assert_eq!(small.dimensions(), (16, 1));
    assert!(small.get_pixel(0, 0)[0] > 200 && small.get_pixel(15, 0)[2] > 200);
}

#[test]
fn a_file_that_is_no_picture_cannot_be_written_again() {
    for file in [&b"no picture"[..], &encode_png(&picture(64, 64), None).unwrap()[..100]] {
        assert!(remake(file, PictureFormat::WebP, None).is_err());
    }
}
