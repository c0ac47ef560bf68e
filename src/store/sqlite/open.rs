//! Opening a database: its path, its lock, its connections, its health and its migrations.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use sqlx::{
    Connection, SqlSafeStr, SqlitePool,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::super::{make_folder, or_here, unavailable};
use crate::dispatch::ports::StoreError;

/// Version, name and statements, oldest first. A migration that was ever released is never changed.
const MIGRATIONS: [(i64, &str, &str); 6] = [
    (1, "jobs", include_str!("../../../migrations/sqlite/0001_jobs.sql")),
    (2, "service", include_str!("../../../migrations/sqlite/0002_service.sql")),
    (3, "inputs", include_str!("../../../migrations/sqlite/0003_inputs.sql")),
    (4, "models", include_str!("../../../migrations/sqlite/0004_models.sql")),
    (5, "refiners", include_str!("../../../migrations/sqlite/0005_refiners.sql")),
    (6, "deadlines", include_str!("../../../migrations/sqlite/0006_deadlines.sql")),
];
/// Where sqlx remembers what it has applied.
const MIGRATIONS_TABLE: &str = "_sqlx_migrations";
const READ_CONNECTIONS: u32 = 4;
/// How long a statement waits for a lock of SQLite's own, such as a backup's.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a statement waits for its turn. Together with [`BUSY_TIMEOUT`] it bounds what a request waits while somebody else keeps
/// the database locked, however many wait.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);

/// One migration of the database's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaVersion {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub description: String,
    /// It was applied just now, and not by an earlier run.
    pub is_new: bool,
}

/// Brings the tables of the database that `url` names up to date, and answers all that are applied now, oldest first. Makes the
/// database when it is not there; touches no job.
///
/// # Errors
/// As for [`SqliteStore::open`](super::SqliteStore::open).
pub async fn migrate(url: &str) -> Result<Vec<SchemaVersion>, StoreError> {
    let (database, versions) = database(url).await?;
    database.writer.close().await;
    Ok(versions)
}

/// A database that is locked, whole and up to date.
pub(super) struct Database {
    path: PathBuf,
    pub(super) writer: SqlitePool,
    pub(super) lock: Lock,
}

pub(super) async fn database(url: &str) -> Result<(Database, Vec<SchemaVersion>), StoreError> {
    let path = place(&parse_path(url)?)?;
    let lock = lock(&path)?;
    let writer = connect(&path, 1, options(&path)).await?;
    check(&writer, &path).await?;
    let versions = apply_migrations(&writer).await.map_err(|error| migration_failed(&path, &error))?;
    Ok((Database { path, writer, lock }, versions))
}

impl Database {
    pub(super) async fn readers(&self) -> Result<SqlitePool, StoreError> {
        connect(&self.path, READ_CONNECTIONS, options(&self.path).read_only(true)).await
    }
}

/// The path in a URL, percent-decoded.
fn parse_path(url: &str) -> Result<PathBuf, StoreError> {
    let allowed = "[store] url must be sqlite://relative/path.db or sqlite:///absolute/path.db";
    // Of a URL of another scheme only the scheme is shown: the rest may hold a password.
    let Some(rest) = url.strip_prefix("sqlite:") else {
        let (scheme, _) = url.split_once(':').unwrap_or(("a URL without a scheme", ""));
        return Err(unavailable(format!("{allowed}; {scheme} is not supported")));
    };
    let refused = |problem: &str| unavailable(format!("{allowed}; {problem}, got {url:?}"));
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.contains('?') {
        return Err(refused("options after ? are not supported"));
    }
    if path == ":memory:" {
        return Err(refused("a database in memory would lose the jobs"));
    }
    if path.is_empty() || path.ends_with('/') {
        return Err(refused("the file's name is missing"));
    }
    let options = SqliteConnectOptions::from_str(url).map_err(|error| refused(&error.to_string()))?;
    Ok(options.get_filename().to_owned())
}

/// Makes the database's folder. Answers the file's one true path: two links to a database must find the same lock.
fn place(path: &Path) -> Result<PathBuf, StoreError> {
    let folder = or_here(path.parent().unwrap_or(path));
    let failed = |error| unavailable(format!("the folder {} of the database cannot be made: {error}", folder.display()));
    make_folder(folder).map_err(failed)?;
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    let folder = folder.canonicalize().map_err(failed)?;
    Ok(path.file_name().map_or(folder.clone(), |name| folder.join(name)))
}

/// Keeps other processes away from a database, until it is dropped or the process dies.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file unlocks it too, but not while a child process that is just being started has a copy of it.
        let _ = self.0.unlock();
    }
}

fn lock(path: &Path) -> Result<Lock, StoreError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let failed = |error| unavailable(format!("the lock file {} cannot be made: {error}", Path::new(&lock_path).display()));
    let file = File::options().create(true).write(true).truncate(false).open(&lock_path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(path.display().to_string())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // With NORMAL a loss of power takes the last commits along, and so jobs that were answered 202.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
}

async fn connect(path: &Path, connections: u32, options: SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(TURN_TIMEOUT)
        // Waiting for the one writer is no news.
        .acquire_slow_threshold(TURN_TIMEOUT)
        // A file does not hang up, so connections are neither tested nor replaced.
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        // When the disk is full, SQLite rolls a transaction back by itself, and sqlx goes on to count it as open: such a connection would
        // begin no other.
        .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
        .connect_with(options)
        .await
        .map_err(|error| unavailable(format!("the database {} cannot be opened: {error}", path.display())))
}

/// Refuses a damaged database before anything is written to it.
async fn check(writer: &SqlitePool, path: &Path) -> Result<(), StoreError> {
    let damaged = |problem: &str| {
        let path = path.display();
        unavailable(format!("the database {path} is damaged and was left as it is; restore it from a backup: {problem}"))
    };
    let verdict: Result<String, _> = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(writer).await;
    match verdict {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(problem) => Err(damaged(&problem)),
        Err(error) => Err(damaged(&error.to_string())),
    }
}

async fn apply_migrations(writer: &SqlitePool) -> Result<Vec<SchemaVersion>, MigrateError> {
    let migrator = Migrator::with_migrations(MIGRATIONS.into_iter().map(migration).collect());
    let mut connection = writer.acquire().await?;
    connection.ensure_migrations_table(MIGRATIONS_TABLE).await?;
    let before = connection.list_applied_migrations(MIGRATIONS_TABLE).await?;
    migrator.run(&mut *connection).await?;
    let is_new = |version| before.iter().all(|applied| applied.version != version);
    let versions = MIGRATIONS.iter().map(|&(version, description, _)| SchemaVersion {
        version,
        description: description.to_owned(),
        is_new: is_new(version),
    });
    Ok(versions.collect())
}

fn migration((version, description, statements): (i64, &'static str, &'static str)) -> Migration {
    Migration::new(version, description.into(), MigrationType::Simple, statements.into_sql_str(), false)
}

fn migration_failed(path: &Path, error: &MigrateError) -> StoreError {
    let path = path.display();
    match error {
        MigrateError::VersionMissing(version) => {
            unavailable(format!("the database {path} was written by a newer version of easel: it has migration {version}"))
        }
        other => unavailable(format!("the tables of the database {path} cannot be brought up to date: {other}")),
    }
}
