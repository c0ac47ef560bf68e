//! Where painted pictures go.

use std::path::{Path, PathBuf};

use super::CliError;

/// The files of a request's pictures.
#[derive(Debug)]
pub(super) struct Output {
    folder: PathBuf,
    stem: String,
}

impl Output {
    /// Checks the name before any time is spent on painting.
    pub(super) fn parse(file: &Path) -> Result<Self, CliError> {
        let problem = |problem: &str| CliError::Usage(format!("--output {}: {problem}", file.display()));
        let is_png = file.extension().is_none_or(|extension| extension.eq_ignore_ascii_case("png"));
        let stem = file.file_stem().and_then(|stem| stem.to_str()).ok_or_else(|| problem("is no file name"))?;
        if !is_png {
            return Err(problem("must end in .png"));
        }
        if file.is_dir() {
            return Err(problem("is a folder; name a file in it"));
        }
        let folder = file.parent().map_or_else(PathBuf::new, Path::to_owned);
        if !folder.as_os_str().is_empty() && !folder.is_dir() {
            return Err(problem("its folder does not exist"));
        }
        Ok(Self { folder, stem: stem.to_owned() })
    }

    /// The file of picture `index` of `count`: numbered when there are several.
    pub(super) fn file(&self, index: u32, count: u32) -> PathBuf {
        let name = if count == 1 { format!("{}.png", self.stem) } else { format!("{}-{index}.png", self.stem) };
        self.folder.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_pictures_are_numbered_and_one_is_not() {
        let output = Output::parse(Path::new("house.png")).unwrap();
        assert_eq!(output.file(0, 1), Path::new("house.png"));
        assert_eq!(output.file(2, 3), Path::new("house-2.png"));
        assert_eq!(Output::parse(Path::new("house")).unwrap().file(0, 1), Path::new("house.png"));
    }

    #[test]
    fn names_that_cannot_be_written_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent/house.png");
        for (file, reason) in [(Path::new("house.jpg"), ".png"), (folder.path(), "folder"), (absent.as_path(), "does not exist")] {
            let error = Output::parse(file).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
