//! Fetches files of one commit into the hub's cache: resumed where a fetch was cut off, and checked against the hub's checksums.

use std::{io::Read, path::PathBuf};

use hf_hub::{Cache, Repo, RepoType, api::RepoInfo};
use url::Url;

use super::{
    cache::Snapshot,
    http::Client,
    metadata::Metadata,
    names::{is_commit, is_inside},
    transfer::{Transfer, progress_bar},
    trouble::{Trouble, local, patiently},
};
use crate::cli::CliError;

/// The longest list of files that is read: hub repositories have hundreds.
const MAX_FILES: usize = 10_000;
/// The longest description of a repository that is read, in bytes.
const MAX_INFO_BYTES: u64 = 16 << 20;
/// The largest file that is fetched beside weights, in bytes; a tokenizer.json has 4 million.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// One commit of a repository.
pub(super) struct Hub {
    client: Client,
    model: String,
    commit: String,
    snapshot: Snapshot,
}

impl Hub {
    /// Finds the commit that `revision` of `model` means now, and the names of its files. All that is fetched is of that commit, whatever is
    /// pushed meanwhile.
    ///
    /// # Errors
    /// When the hub does not answer, or has no such repository for this token.
    pub(super) fn open(cache: &Cache, client: Client, model: &str, revision: &str) -> Result<(Self, Vec<String>), CliError> {
        let address = ["api", "models"].into_iter().chain(model.split('/')).chain(["revision", revision]);
        let url = client.url(address)?;
        let info = patiently(|| info(&client, &url)).map_err(|trouble| trouble.explain(model))?;
        let files: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        if files.len() > MAX_FILES || !files.iter().all(|file| is_inside(file)) || !is_commit(&info.sha) {
            return Err(CliError::failed(format!("{model}: the hub's answer is not a list of a repository's files")));
        }
        let repo = Repo::new(model.to_owned(), RepoType::Model);
        let snapshot = Snapshot::open(cache, repo, info.sha.clone())?;
        Ok((Self { client, model: model.to_owned(), commit: info.sha, snapshot }, files))
    }

    /// Where the file is on this machine, once it is there whole.
    ///
    /// # Errors
    /// When it cannot be fetched, or is not what the hub says.
    pub(super) fn fetch(&self, file: &str) -> Result<PathBuf, CliError> {
        if let Some(path) = self.snapshot.get(file) {
            return Ok(path);
        }
        let address = self.model.split('/').chain(["resolve", &self.commit]).chain(file.split('/'));
        let url = self.client.url(address)?;
        let metadata = self.metadata(&url, file).map_err(|trouble| trouble.explain(file))?;
        let blob = self.snapshot.blob(&metadata.checksum)?;
        if !blob.holds(&metadata).map_err(|error| local(&error).explain(file))? {
            let bar = progress_bar(file, metadata.size);
            let transfer = Transfer { client: &self.client, url, metadata: &metadata, bar };
            transfer.run(&blob).map_err(|trouble| trouble.explain(file))?;
        }
        self.snapshot.link(&blob, file)
    }

    /// Notes in the cache what `revision` means now.
    ///
    /// # Errors
    /// When the cache cannot be written to.
    pub(super) fn note(&self, revision: &str) -> Result<(), CliError> {
        self.snapshot.note(revision)
    }

    fn metadata(&self, url: &Url, file: &str) -> Result<Metadata, Trouble> {
        let answer = patiently(|| self.client.get(url.clone(), Some("0-0")))?;
        let metadata = Metadata::read(&answer, &self.commit).map_err(Trouble::Lasting)?;
        if metadata.size > MAX_TEXT_BYTES && !file.ends_with(".safetensors") {
            return Err(Trouble::Lasting(format!("has {} bytes, and {MAX_TEXT_BYTES} are allowed", metadata.size)));
        }
        Ok(metadata)
    }
}

fn info(client: &Client, url: &Url) -> Result<RepoInfo, Trouble> {
    let mut text = Vec::new();
    let body = client.get(url.clone(), None)?.into_reader();
    body.take(MAX_INFO_BYTES + 1).read_to_end(&mut text).map_err(|error| Trouble::Passing(error.to_string()))?;
    if text.len() as u64 > MAX_INFO_BYTES {
        return Err(Trouble::Lasting(format!("the hub's description has more than {MAX_INFO_BYTES} bytes")));
    }
    serde_json::from_slice(&text).map_err(|error| Trouble::Lasting(format!("the hub's description: {error}")))
}
