//! Fetches files of one commit into the hub's cache: resumed where a fetch was cut off, and checked against the hub's checksums.

use std::{
    fs,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use hf_hub::{
    Cache, CacheRepo, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiError, ApiRepo},
};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::cli::CliError;

/// How often a file that was cut off is tried again at once.
const RETRIES: usize = 3;
/// The longest list of files that is read: hub repositories have hundreds.
const MAX_FILES: usize = 10_000;

/// How much of a file is in memory while it is checked.
const BLOCK_BYTES: usize = 1 << 20;

/// One commit of a repository.
pub(super) struct Hub {
    api: Api,
    repo: ApiRepo,
    cache: CacheRepo,
}

impl Hub {
    /// Finds the commit that `named` means now, and the names of its files.
    ///
    /// # Errors
    /// When the hub does not answer, or has no such repository for this token.
    pub(super) fn open(cache: &Cache, token: Option<String>, named: &Repo) -> Result<(Self, Vec<String>), CliError> {
        let builder = ApiBuilder::from_env().with_token(token).with_retries(RETRIES);
        let api = builder.with_user_agent("easel", env!("CARGO_PKG_VERSION")).build().map_err(CliError::failed)?;
        let info = api.repo(named.clone()).info().map_err(|error| explain(&named.url(), &error))?;
        let files: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        if files.len() > MAX_FILES || !files.iter().all(|file| is_inside(file)) || !is_commit(&info.sha) {
            return Err(CliError::failed(format!("{}: the hub's answer is not a list of a repository's files", named.url())));
        }
        // All files of one commit, whatever is pushed meanwhile.
        let commit = Repo::with_revision(named.url(), RepoType::Model, info.sha);
        Ok((Self { repo: api.repo(commit.clone()), cache: cache.repo(commit), api }, files))
    }

    /// Where the file is on this machine, once it is there whole.
    ///
    /// # Errors
    /// When it cannot be fetched, or is not what the hub says.
    pub(super) fn fetch(&self, file: &str) -> Result<PathBuf, CliError> {
        if let Some(path) = self.cache.get(file) {
            return Ok(path);
        }
        let metadata = self.api.metadata(&self.repo.url(file)).map_err(|error| explain(file, &error))?;
        let etag = metadata.etag();
        if !etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(CliError::failed(format!("{file}: the hub's ETag {etag:?} is not a checksum")));
        }
        let blob = self.cache.blob_path(etag);
        discard_whole_part(&blob, metadata.size())?;
        let path = self.repo.download(file).map_err(|error| explain(file, &error))?;
        if let Err(problem) = check(&blob, etag) {
            // Neither the link nor what it leads to may be taken for the file later.
            for left in [&path, &blob] {
                fs::remove_file(left).map_err(CliError::failed)?;
            }
            return Err(CliError::failed(format!("{file}: {problem}; it was removed, try again")));
        }
        Ok(path)
    }
}

/// A part that is as long as the file, or longer, cannot be resumed: the hub has no bytes behind it.
fn discard_whole_part(blob: &Path, size: usize) -> Result<(), CliError> {
    let part = blob.with_extension("part");
    match fs::metadata(&part) {
        Ok(found) if found.len() >= size as u64 => fs::remove_file(&part).map_err(CliError::failed),
        _ => Ok(()),
    }
}

/// The hub's ETags are SHA-256 for large files, and git's own SHA-1 for the others.
fn check(blob: &Path, etag: &str) -> Result<(), String> {
    let found = match etag.len() {
        64 => hash::<Sha256>(blob, ""),
        40 => fs::metadata(blob).and_then(|file| hash::<Sha1>(blob, &format!("blob {}\0", file.len()))),
        _ => return Err(format!("the hub's ETag {etag:?} is no checksum that is known")),
    };
    match found.map_err(|error| error.to_string())? {
        found if found.eq_ignore_ascii_case(etag) => Ok(()),
        found => Err(format!("it came damaged: its checksum is {found}, and should be {etag}")),
    }
}

fn hash<D: Digest>(file: &Path, prefix: &str) -> io::Result<String> {
    let (mut file, mut block) = (fs::File::open(file)?, vec![0; BLOCK_BYTES]);
    let mut digest = D::new_with_prefix(prefix);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            bytes => digest.update(&block[..bytes]),
        }
    }
}

/// A file's name that stays in its folder.
fn is_inside(file: &str) -> bool {
    !file.is_empty() && !file.contains('\\') && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)))
}

fn is_commit(sha: &str) -> bool {
    !sha.is_empty() && sha.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What the user can do about it.
fn explain(what: &str, error: &ApiError) -> CliError {
    let status = match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    };
    CliError::failed(match status {
        Some(401 | 403) => {
            format!("{what}: the hub does not let you have it: accept its terms on its page and set HF_TOKEN, or check the name")
        }
        Some(404) => format!("{what}: not on the hub, or not at this revision"),
        _ => format!("{what}: {error}"),
    })
}
