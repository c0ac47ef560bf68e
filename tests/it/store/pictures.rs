//! Pictures in a folder.

use std::{fs, path::Path};

use bytes::Bytes;
use easel::{
    dispatch::ports::{PictureKey, PictureStore, StoreError},
    domain::{JobId, PictureFormat, sha256_hex},
    store::ObjectPictures,
};
use futures::future::join_all;
use tempfile::TempDir;

async fn pictures() -> (ObjectPictures, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let pictures = ObjectPictures::open(folder.path().join("some/pictures").to_str().unwrap(), "jobs").await.unwrap();
    (pictures, folder)
}

fn output(job: JobId) -> PictureKey {
    PictureKey::Output { job, index: 0, format: PictureFormat::Png }
}

#[tokio::test]
async fn pictures_come_back_as_they_were_put() {
    let (pictures, folder) = pictures().await;
    let bytes = Bytes::from_static(b"not really a picture");
    let sha256 = sha256_hex(&bytes);
    let (input, output) = (PictureKey::Input { sha256: sha256.clone() }, output(JobId::random()));
    for key in [&input, &output] {
        assert_eq!(pictures.get(key).await.unwrap(), None);
        pictures.put(key, bytes.clone()).await.unwrap();
        assert_eq!(pictures.get(key).await.unwrap(), Some(bytes.clone()));
    }
    pictures.put(&output, Bytes::from_static(b"another")).await.unwrap();
    assert_eq!(pictures.get(&output).await.unwrap(), Some(Bytes::from_static(b"another")));
    let root = folder.path().join("some/pictures");
    assert!(root.join("inputs").join(sha256).is_file());
    let PictureKey::Output { job, .. } = output else { panic!() };
    assert!(root.join(format!("pictures/{job}/0.png")).is_file());
}

#[tokio::test]
async fn pictures_outlive_the_store() {
    let (pictures, folder) = pictures().await;
    let key = output(JobId::random());
    pictures.put(&key, Bytes::from_static(b"a picture")).await.unwrap();
    drop(pictures);
    let url = url::Url::from_file_path(folder.path().join("some/pictures")).unwrap();
    let pictures = ObjectPictures::open(url.as_str(), "jobs").await.unwrap();
    assert_eq!(pictures.get(&key).await.unwrap(), Some(Bytes::from_static(b"a picture")));
}

#[tokio::test]
async fn what_a_crash_leaves_half_written_never_shows() {
    let (pictures, folder) = pictures().await;
    let job = JobId::random();
    let half = folder.path().join(format!("some/pictures/pictures/{job}/0.png#1"));
    fs::create_dir_all(half.parent().unwrap()).unwrap();
    fs::write(&half, b"ha").unwrap();
    assert_eq!(pictures.get(&output(job)).await.unwrap(), None);
    pictures.put(&output(job), Bytes::from_static(b"half no more")).await.unwrap();
    assert_eq!(pictures.get(&output(job)).await.unwrap(), Some(Bytes::from_static(b"half no more")));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_one_whole_picture_while_writers_replace_it() {
    let (pictures, _folder) = pictures().await;
    let key = output(JobId::random());
    let versions: Vec<Bytes> = (0..16).map(|version| Bytes::from(vec![version; 300_000])).collect();
    pictures.put(&key, versions[0].clone()).await.unwrap();
    let writes = join_all(versions.iter().map(|version| pictures.put(&key, version.clone())));
    let reads = join_all((0..64).map(|_| pictures.get(&key)));
    let (written, read) = tokio::join!(writes, reads);
    written.into_iter().for_each(|write| write.unwrap());
    for picture in read {
        assert!(versions.contains(&picture.unwrap().unwrap()), "a reader saw a part of a picture");
    }
}

#[tokio::test]
async fn an_input_key_that_is_no_sha256_is_refused() {
    let (pictures, folder) = pictures().await;
    for sha256 in ["../../../escape".to_owned(), "AB".repeat(32), "ab".repeat(31), String::new()] {
        let key = PictureKey::Input { sha256 };
        assert!(matches!(pictures.put(&key, Bytes::new()).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(pictures.get(&key).await, Err(StoreError::Unavailable(_))));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_folder_that_vanishes_is_noticed() {
    let (pictures, folder) = pictures().await;
    pictures.ping().await.unwrap();
    fs::remove_dir_all(folder.path().join("some/pictures")).unwrap();
    assert!(matches!(pictures.ping().await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_place_that_cannot_be_used_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    for (place, wanted) in [
        (file.to_str().unwrap(), "cannot be"),
        ("s3://key:secret@bucket/pictures", "s3:// is not supported"),
        ("file://never-made/pictures", "file:///absolute/path"),
        ("", "is empty"),
    ] {
        let Err(StoreError::Unavailable(problem)) = ObjectPictures::open(place, "jobs").await else { panic!("{place} was opened") };
        assert!(problem.contains(wanted) && !problem.contains("secret"), "{problem}");
    }
    assert!(!Path::new("never-made").exists());
}

#[tokio::test]
async fn an_empty_folder_that_a_crash_has_left_of_a_job_is_removed_with_its_pictures() {
    let (pictures, folder) = pictures().await;
    let job = JobId::random();
    fs::create_dir_all(folder.path().join(format!("some/pictures/pictures/{job}"))).unwrap();
    assert_eq!(pictures.outputs().await.unwrap(), [job]);
    pictures.remove_outputs(job).await.unwrap();
    assert!(pictures.outputs().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_folder_serves_the_job_store_that_made_it_and_no_other() {
    let (_, folder) = pictures().await;
    let place = folder.path().join("some/pictures");
    let open = async |jobs: &str| ObjectPictures::open(place.to_str().unwrap(), jobs).await;
    open("jobs").await.unwrap();
    let problem = open("other jobs").await.unwrap_err().to_string();
    assert!(problem.contains("belongs to another job store") && problem.contains("some/pictures/.easel"), "{problem}");
    fs::remove_file(place.join(".easel")).unwrap();
    open("other jobs").await.unwrap();
}

#[tokio::test]
async fn a_folder_of_the_first_version_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".easel"), "Pictures of Easel\n").unwrap();
    ObjectPictures::open(folder.path().to_str().unwrap(), "jobs").await.unwrap();
    assert!(ObjectPictures::open(folder.path().to_str().unwrap(), "other jobs").await.is_err());
}
