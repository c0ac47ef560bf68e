//! The parameters text inside a picture's file: an iTXt chunk in PNG, the EXIF user comment in JPEG and WebP, both as AUTOMATIC1111
//! writes and reads them.

use std::io::Cursor;

use exif::{Field, In, Reader, Tag, Value, experimental::Writer};

use super::PictureError;

/// The keyword of the PNG chunk.
pub(super) const KEYWORD: &str = "parameters";
/// What the EXIF standard puts before a comment in UTF-16. That its byte order is the big one is AUTOMATIC1111's habit.
const UNICODE: &[u8] = b"UNICODE\0";
/// The longest comment, in UTF-16 units: a JPEG segment holds 65,527 bytes of EXIF.
const MAX_UNITS: usize = 32_700;

/// An EXIF block whose user comment is the text.
pub(super) fn exif(parameters: &str) -> Result<Vec<u8>, PictureError> {
    let mut comment = UNICODE.to_vec();
    comment.extend(fitted(parameters).encode_utf16().flat_map(u16::to_be_bytes));
    let field = Field { tag: Tag::UserComment, ifd_num: In::PRIMARY, value: Value::Undefined(comment, 0) };
    let mut writer = Writer::new();
    writer.push_field(&field);
    let mut block = Cursor::new(Vec::new());
    writer.write(&mut block, false).map_err(PictureError::encode)?;
    Ok(block.into_inner())
}

/// The text as far as it fits. Only prompts of more than 16,000 characters beyond the basic plane do not: they lose their end, so that
/// the last line keeps the settings.
fn fitted(parameters: &str) -> String {
    let (prompts, settings) = parameters.split_at(parameters.rfind('\n').unwrap_or(parameters.len()));
    let mut room = MAX_UNITS.saturating_sub(settings.encode_utf16().count());
    let fits = |character: &char| {
        let units = character.len_utf16();
        let fits = units <= room;
        room = if fits { room - units } else { 0 };
        fits
    };
    prompts.chars().take_while(fits).chain(settings.chars()).collect()
}

/// The text that a painted picture's file holds; `None` when it holds none.
pub(super) fn read_parameters(file: &[u8]) -> Option<String> {
    if file.starts_with(b"\x89PNG") { read_itxt(file) } else { read_user_comment(file) }
}

fn read_itxt(file: &[u8]) -> Option<String> {
    let reader = png::Decoder::new(Cursor::new(file)).read_info().ok()?;
    let chunk = reader.info().utf8_text.iter().find(|chunk| chunk.keyword == KEYWORD)?;
    chunk.get_text().ok()
}

fn read_user_comment(file: &[u8]) -> Option<String> {
    let exif = Reader::new().read_from_container(&mut Cursor::new(file)).ok()?;
    let Value::Undefined(comment, _) = &exif.get_field(Tag::UserComment, In::PRIMARY)?.value else { return None };
    let units = comment.strip_prefix(UNICODE)?.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    char::decode_utf16(units).collect::<Result<_, _>>().ok()
}
