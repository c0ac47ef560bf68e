//! Databases that open, and those that are refused and left as they are.

use std::fs;

use easel::{
    dispatch::ports::{JobStore, StoreError},
    store::{SchemaVersion, SqliteStore, migrate},
};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{TestStore, database, url};

/// The text of the error that a URL is refused with.
async fn refusal(url: &str) -> String {
    match SqliteStore::open(url).await {
        Err(StoreError::Unavailable(problem)) => problem,
        other => panic!("{url} was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_database_serves_one_store_at_a_time() {
    let store = TestStore::new().await;
    let id = store.add("a red house").await;
    let Err(StoreError::Locked(path)) = SqliteStore::open(&url(&store.folder)).await else { panic!() };
    assert!(path.ends_with("jobs/easel.db"), "{path}");
    assert!(matches!(migrate(&url(&store.folder)).await, Err(StoreError::Locked(_))));
    store.ping().await.unwrap();
    let store = store.after_a_crash().await;
    assert_eq!(store.queue().await.unwrap(), [id]);
}

#[tokio::test]
async fn a_relative_path_starts_at_the_working_folder() {
    let folder = TestStore::new().await.close().await;
    let to_root = "../".repeat(std::env::current_dir().unwrap().components().count());
    let store = SqliteStore::open(&url(&folder).replace(":///", &format!("://{to_root}"))).await.unwrap();
    assert!(matches!(SqliteStore::open(&url(&folder)).await, Err(StoreError::Locked(_))));
    store.ping().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_to_a_database_finds_the_same_lock() {
    let store = TestStore::new().await;
    let link = store.folder.path().join("link.db");
    std::os::unix::fs::symlink(database(&store.folder), &link).unwrap();
    assert!(matches!(SqliteStore::open(&format!("sqlite://{}", link.display())).await, Err(StoreError::Locked(_))));
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.db");
    let notes = "These are my notes and no database. ".repeat(300);
    fs::write(&path, &notes).unwrap();
    let problem = refusal(&format!("sqlite://{}", path.display())).await;
    assert!(problem.contains("notes.db") && problem.contains("not a database"), "{problem}");
    assert_eq!(fs::read_to_string(&path).unwrap(), notes);
}

#[tokio::test]
async fn a_damaged_database_is_refused_and_left_alone() {
    let store = TestStore::new().await;
    for number in 0..50 {
        store.add(&format!("a red house with {number} windows")).await;
    }
    let folder = store.close().await;
    let path = database(&folder);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xa5);
    fs::write(&path, &bytes).unwrap();

    let problem = refusal(&url(&folder)).await;
    assert!(problem.contains("easel.db is damaged"), "{problem}");
    assert!(fs::read(&path).unwrap() == bytes, "the damaged file was written to");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let folder = TestStore::new().await.close().await;
    let options = SqliteConnectOptions::new().filename(database(&folder));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let from_the_future = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                           VALUES (999, 'later', true, x'00', 0)";
    sqlx::query(from_the_future).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let problem = refusal(&url(&folder)).await;
    assert!(problem.contains("newer version of easel") && problem.contains("999"), "{problem}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let problem = refusal(&format!("sqlite://{}/file/easel.db", folder.path().display())).await;
    assert!(problem.contains("/file of the database cannot be made"), "{problem}");
    let problem = refusal(&format!("sqlite://{}", folder.path().display())).await;
    assert!(problem.contains(folder.path().to_str().unwrap()) && problem.contains("cannot be opened"), "{problem}");
}

#[tokio::test]
async fn a_url_that_is_not_supported_says_what_is() {
    for url in [
        "postgres://easel:secret@db/easel",
        "data/easel.db",
        "",
        "sqlite:",
        "sqlite://",
        "sqlite::memory:",
        "sqlite://a.db?mode=ro",
    ] {
        let problem = refusal(url).await;
        assert!(problem.contains("must be sqlite://relative/path.db or sqlite:///absolute/path.db"), "{url}: {problem}");
        assert!(!problem.contains("secret"), "{problem}");
    }
}

#[tokio::test]
async fn migrate_makes_the_tables_once_and_touches_no_job() {
    let folder = tempfile::tempdir().unwrap();
    let version = |version, description: &str, is_new| SchemaVersion { version, description: description.to_owned(), is_new };
    let names = [(1, "jobs"), (2, "service"), (3, "inputs"), (4, "models"), (5, "refiners"), (6, "deadlines")];
    let all = |is_new| names.map(|(number, name)| version(number, name, is_new));
    assert_eq!(migrate(&url(&folder)).await.unwrap(), all(true));
    let store = TestStore { store: SqliteStore::open(&url(&folder)).await.unwrap(), folder };
    store.add("a red house").await;
    let (claimed, _) = store.claim_next(super::MINUTE).await;
    let folder = store.close().await;

    assert_eq!(migrate(&url(&folder)).await.unwrap(), all(false));
    let store = SqliteStore::open(&url(&folder)).await.unwrap();
    assert_eq!(store.get(claimed.id).await.unwrap(), Some(claimed));
}
