//! Files in the picture store that no job owns.

use std::{
    collections::HashSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

/// What lies in the picture store.
#[derive(Debug)]
pub(crate) struct Leftovers {
    files: usize,
    jobs: usize,
    /// Pictures to start from whose jobs are removed: they wait for the sweep, which leaves each of them an hour.
    waiting: usize,
    /// Files that belong to no job that the server knows.
    pub(crate) unowned: Vec<PathBuf>,
}

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} jobs, {} waiting for the sweep, {} owned by none",
            self.files,
            self.jobs,
            self.waiting,
            self.unowned.len()
        )
    }
}

/// Compares the files of a server that is at rest with its jobs.
pub(crate) async fn find(url: &str, folder: &Path) -> Leftovers {
    let (jobs, inputs) = jobs(url).await;
    let (mut files, root) = (Vec::new(), folder.join("pictures"));
    list(&root, &mut files);
    let mut waiting = 0;
    let mut is_owned = |file: &&PathBuf| {
        let inside: Vec<_> = file.strip_prefix(&root).unwrap().iter().map(|part| part.to_str().unwrap()).collect();
        match inside[..] {
            [".easel"] => true,
            ["inputs", sha256] => {
                waiting += usize::from(!inputs.contains(sha256));
                true
            }
            ["pictures", job, picture] => jobs.contains(job) && !picture.contains('#'),
            _ => false,
        }
    };
    let unowned = files.iter().filter(|file| !is_owned(file)).cloned().collect();
    Leftovers { files: files.len(), jobs: jobs.len(), waiting, unowned }
}

/// The ids of all jobs, and the SHA-256 of the pictures that they start from.
async fn jobs(url: &str) -> (HashSet<String>, HashSet<String>) {
    let (mut jobs, mut inputs) = (HashSet::new(), HashSet::new());
    let mut page = format!("{url}/v1/jobs?limit=100");
    loop {
        let answer: Value = reqwest::get(&page).await.unwrap().json().await.unwrap();
        for job in answer["jobs"].as_array().unwrap() {
            jobs.insert(job["id"].as_str().unwrap().to_owned());
            inputs.extend(job["request"]["image"]["sha256"].as_str().map(str::to_owned));
        }
        let Some(cursor) = answer["next_cursor"].as_str() else { return (jobs, inputs) };
        page = format!("{url}/v1/jobs?limit=100&cursor={cursor}");
    }
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => list(&path, files),
            false => files.push(path),
        }
    }
}
