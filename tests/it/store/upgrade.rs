//! A database of the first version, with jobs in it, opened by this one.

use easel::{
    dispatch::ports::JobStore,
    domain::{Encoding, JobStatus, Owner},
    store::SqliteStore,
};
use sqlx::{
    Connection, SqliteConnection,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::SqliteConnectOptions,
};

use tempfile::TempDir;

use super::{MINUTE, TestStore, database, url};

/// What earlier versions have made of an empty file.
const EARLIER: [(&str, &str); 4] = [
    ("jobs", include_str!("../../../migrations/sqlite/0001_jobs.sql")),
    ("service", include_str!("../../../migrations/sqlite/0002_service.sql")),
    ("inputs", include_str!("../../../migrations/sqlite/0003_inputs.sql")),
    ("models", include_str!("../../../migrations/sqlite/0004_models.sql")),
];
const REQUEST: &str = r#"{"model":"demo","prompt":"a house","negative_prompt":null,"width":64,"height":64,"num_inference_steps":2,
    "guidance_scale":5.0,"scheduler":"ddim","seed":7,"num_images":1,"image":{"sha256":"ab","width":64,"height":64,
    "content_type":"image/png"},"strength":0.5,"preview_every":0,"metadata":{}}"#;

/// A database as that version leaves it.
async fn database_of(version: usize, folder: &TempDir) -> SqliteConnection {
    std::fs::create_dir(database(folder).parent().unwrap()).unwrap();
    let options = SqliteConnectOptions::new().filename(database(folder)).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let migrations = (1..).zip(&EARLIER[..version]).map(|(number, &(name, sql))| {
        Migration::new(number, name.into(), MigrationType::Simple, sqlx::SqlSafeStr::into_sql_str(sql), false)
    });
    Migrator::with_migrations(migrations.collect()).run(&mut connection).await.unwrap();
    connection
}

async fn models_of(store: &TestStore) -> Vec<String> {
    sqlx::query_scalar("SELECT models FROM jobs ORDER BY seq").fetch_all(&mut store.connect().await).await.unwrap()
}

#[tokio::test]
async fn the_refiners_of_jobs_of_the_fourth_version_have_a_say_in_their_turn() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = database_of(4, &folder).await;
    let refined = REQUEST.replace(r#""prompt""#, r#""refiner":"fine","refiner_start":0.8,"prompt""#);
    for (id, request) in [(1, REQUEST), (2, &refined), (3, "no request")] {
        let old = "INSERT INTO jobs (id, created_at, request, request_id, warnings, model) VALUES (?, '2026-01-02T03:04:05.678901234Z', ?, 'r', '[]', 'demo')";
        let id = format!("00000000-0000-4000-8000-00000000000{id}");
        sqlx::query(old).bind(id).bind(request).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    let store = TestStore { store: SqliteStore::open(&url(&folder)).await.unwrap(), folder };
    assert_eq!(models_of(&store).await, [r#"["demo"]"#, r#"["demo","fine"]"#, "[]"]);
    let (claimed, _) = store.claim_next(MINUTE).await;
    assert_eq!(claimed.request.models(), ["demo"]);
    let (claimed, _) = store.claim_next(MINUTE).await;
    assert_eq!(claimed.request.models(), ["demo", "fine"]);
}

#[tokio::test]
async fn the_jobs_of_the_first_version_are_painted_by_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut connection = database_of(1, &folder).await;
    let ids = ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"];
    for id in ids {
        let old = "INSERT INTO jobs (id, created_at, request, request_id, warnings) VALUES (?, '2026-01-02T03:04:05.678901234Z', ?, 'r', '[]')";
        sqlx::query(old).bind(id).bind(REQUEST).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();

    let store = TestStore { store: SqliteStore::open(&url(&folder)).await.unwrap(), folder };
    let new = store.add("came later").await;
    let (claimed, _) = store.claim_next(MINUTE).await;
    assert_eq!((claimed.id.to_string().as_str(), claimed.status), (ids[0], JobStatus::Running));
    assert_eq!((claimed.owner, claimed.request.priority, claimed.retry_of), (Owner::anonymous(), 5, None));
    assert_eq!(claimed.request.output, Encoding::default(), "the first version wrote PNG only");
    assert_eq!(store.queue().await.unwrap(), [ids[1].parse().unwrap(), new]);
    assert!(store.has_input("ab").await.unwrap(), "the picture that it starts from would be swept");
    assert_eq!(models_of(&store).await, [r#"["demo"]"#; 3]);
}
