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

use super::{MINUTE, TestStore, database, url};

const FIRST: &str = include_str!("../../../migrations/sqlite/0001_jobs.sql");
const REQUEST: &str = r#"{"model":"demo","prompt":"a house","negative_prompt":null,"width":64,"height":64,"num_inference_steps":2,
    "guidance_scale":5.0,"scheduler":"ddim","seed":7,"num_images":1,"image":{"sha256":"ab","width":64,"height":64,
    "content_type":"image/png"},"strength":0.5,"preview_every":0,"metadata":{}}"#;

#[tokio::test]
async fn the_jobs_of_the_first_version_are_painted_by_this_one() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(database(&folder).parent().unwrap()).unwrap();
    let options = SqliteConnectOptions::new().filename(database(&folder)).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let first = Migration::new(1, "jobs".into(), MigrationType::Simple, sqlx::SqlSafeStr::into_sql_str(FIRST), false);
    Migrator::with_migrations(vec![first]).run(&mut connection).await.unwrap();
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
    let of_demo = "SELECT count(*) FROM jobs WHERE model = 'demo'";
    assert_eq!(sqlx::query_scalar::<_, i64>(of_demo).fetch_one(&mut store.connect().await).await.unwrap(), 3);
}
