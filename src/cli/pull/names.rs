//! Names of models, revisions and files, from the user or from a hub: none of them may lead anywhere else as a path.

/// The longest file name with its folders, in bytes, and the longest part between its slashes.
const MAX_NAME: (usize, usize) = (1024, 255);

/// A file's name that stays in its folder.
pub(super) fn is_inside(file: &str) -> bool {
    let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= MAX_NAME.1;
    // Control characters would be written to the user's terminal.
    let is_plain = !file.chars().any(|letter| letter.is_control() || letter == '\\');
    is_plain && file.len() <= MAX_NAME.0 && file.split('/').all(is_part)
}

/// What git calls a commit: a SHA-1 or SHA-256 in hexadecimal digits.
pub(super) fn is_commit(sha: &str) -> bool {
    matches!(sha.len(), 40 | 64) && sha.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `OWNER/NAME`, or the name alone of the hub's oldest models.
pub(super) fn model_name(text: &str) -> Result<String, String> {
    let is_word = |word: &str| {
        let is_plain = word.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
        // Two hyphens stand for the slash in the cache's names of folders.
        let is_whole = !word.contains("..") && !word.contains("--") && !word.starts_with('.');
        !word.is_empty() && word.len() <= 96 && is_plain && is_whole
    };
    let words: Vec<&str> = text.split('/').collect();
    match words.len() <= 2 && words.iter().all(|word| is_word(word)) {
        true => Ok(text.to_owned()),
        false => Err("must be OWNER/NAME, such as stable-diffusion-v1-5/stable-diffusion-v1-5".to_owned()),
    }
}

/// A branch, a tag or a commit.
pub(super) fn revision(text: &str) -> Result<String, String> {
    if is_inside(text) { Ok(text.to_owned()) } else { Err("must be a branch, a tag or a commit".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_is_no_path() {
        assert!(["gpt2", "a/b", "stabilityai/sdxl-turbo_1.0"].iter().all(|name| model_name(name).is_ok()));
        let wrong = ["", "a/", "/a", "a/b/c", "../x", "a/..", "a/.hidden", "a b", "a--b/c"];
        assert!(wrong.iter().all(|name| model_name(name).is_err()));
    }

    #[test]
    fn a_files_name_stays_in_its_folder() {
        assert!(["a", "a/b.json", "..a", "my model (1)%2e#?.safetensors", "模型.safetensors"].iter().all(|name| is_inside(name)));
        let wrong = ["", "/a", "a/", "a//b", ".", "a/./b", "..", "a/../b", "a\\b", "a\nb", "a\u{1b}[2J", "a\0"];
        assert!(wrong.iter().all(|name| !is_inside(name)));
        assert!(!is_inside(&"a".repeat(256)) && !is_inside(&"a/".repeat(600)));
        assert!(revision("refs/pr/1").is_ok() && revision("../../main").is_err());
    }

    #[test]
    fn a_commit_is_a_checksum() {
        assert!(is_commit(&"0a".repeat(20)) && is_commit(&"0A".repeat(32)));
        assert!(["", "main", "abc", "../../..", &"x".repeat(40)].iter().all(|sha| !is_commit(sha)));
    }
}
