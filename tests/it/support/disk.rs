//! A small disk of a test's own, which can be filled and made read-only while a server works on it.
//!
//! It is a tmpfs in a mount namespace of its own, so that nothing needs to be root and nothing is left behind.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::easel_by;

const SIZE: &str = "size=16m";
/// The pictures' folder is a mount, too, since a disk that holds an open database cannot be made read-only.
const MOUNT: &str = r#"mount -t tmpfs -o "$1" easel "$2" && mkdir "$2/pictures" && mount --bind "$2/pictures" "$2/pictures" &&
    echo mounted && exec cat"#;

/// The disk; it goes with the process that keeps its namespace.
pub(crate) struct Disk {
    folder: TempDir,
    keeper: Child,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut unshare = Command::new("unshare");
        let script = unshare.args(["--map-root-user", "--mount", "sh", "-c", MOUNT, "sh", SIZE]).arg(folder.path());
        let mut keeper = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this test needs unshare (util-linux)");
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(
            said, "mounted\n",
            "this test needs user namespaces or root: `unshare --map-root-user --mount` does not work here"
        );
        Self { folder, keeper }
    }

    /// The folder as a server sees it that is started by [`Self::easel`].
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The same folder as the test sees it.
    pub(crate) fn outside(&self) -> PathBuf {
        let inside = self.folder().strip_prefix("/").unwrap();
        Path::new("/proc").join(self.keeper.id().to_string()).join("root").join(inside)
    }

    /// The `easel` command, its data on this disk.
    pub(crate) fn easel(&self) -> Command {
        let mut command = self.enter();
        // Another namespace begins at its root.
        command.arg("env").arg(format!("--chdir={}", env!("CARGO_MANIFEST_DIR")));
        easel_by(command, self.folder())
    }

    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "--user", "--mount", "--target", &self.keeper.id().to_string(), "--"]);
        command
    }

    /// Leaves room for nothing.
    pub(crate) fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        loop {
            match filler.write(&[0; 4096]) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Takes away what [`Self::fill`] has put there.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.outside().join("filler")
    }

    /// Makes the disk, which no server may have open, read-only.
    pub(crate) fn make_read_only(&self) {
        self.remount("remount,ro", self.folder());
    }

    /// Makes the pictures' folder read-only (`ro`) or writable again (`rw`).
    pub(crate) fn remount_pictures(&self, flag: &str) {
        self.remount(&format!("remount,bind,{flag}"), &self.folder().join("pictures"));
    }

    fn remount(&self, options: &str, place: &Path) {
        let done = self.enter().args(["mount", "-o", options]).arg(place).status().unwrap();
        assert!(done.success(), "mount -o {options} {}", place.display());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
