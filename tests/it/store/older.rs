//! Jobs that an older version stored.

use easel::{
    dispatch::ports::JobStore,
    domain::{Encoding, PictureFormat},
};

use super::{CAPACITY, TestStore, job, unreadable::connect};

#[tokio::test]
async fn a_job_of_a_version_that_wrote_png_only_is_read_as_one_that_asked_for_png() {
    let store = TestStore::new().await;
    let mut stored = job("a red house");
    stored.request.output = Encoding { format: PictureFormat::WebP, quality: 33 };
    store.insert(&stored, CAPACITY).await.unwrap();
    let aged = sqlx::query("UPDATE jobs SET request = json_remove(request, '$.output_format', '$.output_quality') WHERE id = ?");
    aged.bind(stored.id.to_string()).execute(&mut connect(&store).await).await.unwrap();
    stored.request.output = Encoding::default();
    assert_eq!(store.get(stored.id).await.unwrap(), Some(stored));
}
