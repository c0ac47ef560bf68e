//! Where painted pictures go.

use std::path::{Path, PathBuf};

use super::CliError;
use crate::domain::PictureFormat;

/// The name of a request's files when the command line has none.
const DEFAULT_STEM: &str = "easel";

/// The files of a request's pictures.
#[derive(Debug)]
pub(super) struct Output {
    folder: PathBuf,
    stem: String,
    /// As it was typed; without one the format's own.
    extension: Option<String>,
}

impl Output {
    /// Checks the name before any time is spent on painting.
    pub(super) fn parse(file: Option<&Path>) -> Result<Self, CliError> {
        let Some(file) = file else {
            return Ok(Self { folder: PathBuf::new(), stem: DEFAULT_STEM.to_owned(), extension: None });
        };
        let problem = |problem: &str| CliError::Usage(format!("--output {}: {problem}", file.display()));
        let stem = file.file_stem().and_then(|stem| stem.to_str()).ok_or_else(|| problem("is no file name"))?;
        let extension = file.extension().map(|extension| extension.to_string_lossy().into_owned());
        if extension.as_deref().is_some_and(|extension| PictureFormat::from_extension(extension).is_none()) {
            return Err(problem("must end in .png, .jpg, .jpeg or .webp"));
        }
        if file.is_dir() {
            return Err(problem("is a folder; name a file in it"));
        }
        let folder = file.parent().map_or_else(PathBuf::new, Path::to_owned);
        if !folder.as_os_str().is_empty() && !folder.is_dir() {
            return Err(problem("its folder does not exist"));
        }
        Ok(Self { folder, stem: stem.to_owned(), extension })
    }

    /// The format that the name tells.
    pub(super) fn format(&self) -> Option<PictureFormat> {
        self.extension.as_deref().and_then(PictureFormat::from_extension)
    }

    /// The files in the request's format; a name that tells another is refused.
    pub(super) fn of_format(mut self, format: PictureFormat) -> Result<Self, CliError> {
        let extension = self.extension.get_or_insert_with(|| format.extension().to_owned());
        if PictureFormat::from_extension(extension) == Some(format) {
            return Ok(self);
        }
        Err(CliError::Usage(format!("--output ends in .{extension}, but --output-format is {}", format.name())))
    }

    /// The file of picture `index` of `count`: numbered when there are several.
    pub(super) fn file(&self, index: u32, count: u32) -> PathBuf {
        let name = if count == 1 { self.stem.clone() } else { format!("{}-{index}", self.stem) };
        let dot = self.extension.as_ref().map_or_else(String::new, |extension| format!(".{extension}"));
        self.folder.join(name + &dot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, format: PictureFormat, index: u32, count: u32) -> PathBuf {
        Output::parse(Some(Path::new(name))).unwrap().of_format(format).unwrap().file(index, count)
    }

    #[test]
    fn several_pictures_are_numbered_and_one_is_not() {
        assert_eq!(file("house.png", PictureFormat::Png, 0, 1), Path::new("house.png"));
        assert_eq!(file("house.png", PictureFormat::Png, 2, 3), Path::new("house-2.png"));
        assert_eq!(file("house", PictureFormat::Png, 0, 1), Path::new("house.png"));
    }

    #[test]
    fn a_file_ends_as_its_format_asks_or_as_it_was_typed() {
        assert_eq!(file("house", PictureFormat::Jpeg, 1, 2), Path::new("house-1.jpg"));
        assert_eq!(file("house.JPEG", PictureFormat::Jpeg, 0, 1), Path::new("house.JPEG"));
        let unnamed = Output::parse(None).unwrap();
        assert_eq!(unnamed.format(), None);
        assert_eq!(unnamed.of_format(PictureFormat::WebP).unwrap().file(0, 1), Path::new("easel.webp"));
    }

    #[test]
    fn a_name_that_tells_another_format_is_refused() {
        let error = Output::parse(Some(Path::new("house.png"))).unwrap().of_format(PictureFormat::Jpeg).unwrap_err();
        assert_eq!(error.to_string(), "--output ends in .png, but --output-format is jpeg");
    }

    #[test]
    fn names_that_cannot_be_written_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent/house.png");
        for (file, reason) in [(Path::new("house.gif"), ".webp"), (folder.path(), "folder"), (absent.as_path(), "does not exist")] {
            let error = Output::parse(Some(file)).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
