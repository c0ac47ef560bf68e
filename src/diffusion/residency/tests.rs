//! Models that are nothing but names.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::*;

/// A model of so many bytes; 0 is one whose files cannot be read.
struct Named(&'static str, Arc<AtomicU64>);

impl ModelSource<&'static str> for Named {
    fn name(&self) -> &str {
        self.0
    }

    fn path(&self) -> &Path {
        Path::new("/models/x")
    }

    fn bytes(&self) -> Result<u64, LoadError> {
        match self.1.load(Ordering::SeqCst) {
            0 => Err(LoadError::Invalid { path: "/models/x/unet/a.safetensors".into(), problem: "cut short".to_owned() }),
            bytes => Ok(bytes),
        }
    }

    fn load(&self) -> Result<&'static str, LoadError> {
        Ok(self.0)
    }
}

fn start(models: &[(&'static str, u64)], settings: ResidencySettings) -> Result<Residency<&'static str>, LoadError> {
    let source = |&(name, bytes): &(&'static str, u64)| -> Box<dyn ModelSource<&'static str>> {
        Box::new(Named(name, Arc::new(bytes.into())))
    };
    Residency::start(models.iter().map(source).collect(), settings)
}

fn settings(memory: u64) -> ResidencySettings {
    ResidencySettings { memory: Some(memory), ..ResidencySettings::default() }
}

fn here(residency: &Residency<&'static str>) -> Vec<&'static str> {
    residency.entries.iter().filter_map(|entry| if let Place::Here(model) = entry.state { Some(model) } else { None }).collect()
}

fn load(residency: &mut Residency<&'static str>, name: &str) {
    let Ok(Prepared::Load(ModelLoad { work, .. })) = residency.prepare(&[name]) else { panic!("{name} was not to be loaded") };
    residency.install(name, work()).unwrap();
}

/// The hold of a job that begins with a model that is here.
fn wanted(residency: &mut Residency<&'static str>, name: &str) -> ModelHold {
    assert!(matches!(residency.prepare(&[name]), Ok(Prepared::Ready)));
    residency.hold(name).unwrap()
}

#[test]
fn the_start_loads_in_order_what_fits_and_is_not_for_later() {
    let on_first_use = BTreeSet::from(["b".to_owned()]);
    let residency = start(&[("a", 4), ("b", 2), ("c", 7), ("d", 6)], ResidencySettings { on_first_use, ..settings(10) }).unwrap();
    assert_eq!(here(&residency), ["a", "d"]);
}

#[test]
fn the_least_recently_used_leaves_for_one_that_does_not_fit() {
    let mut residency = start(&[("a", 4), ("b", 4), ("c", 4)], settings(8)).unwrap();
    drop(wanted(&mut residency, "a"));
    load(&mut residency, "c");
    assert_eq!(here(&residency), ["a", "c"]);
    let events = residency.take_events();
    assert_eq!(events[2], ModelEvent::Evicted { model: "b".to_owned() });
    assert_eq!(events[3], ModelEvent::Switched { model: "c".to_owned() });
}

#[test]
fn a_model_stays_while_somebody_holds_it() {
    let mut residency = start(&[("a", 8), ("b", 8)], settings(8)).unwrap();
    let hold = wanted(&mut residency, "a");
    let Ok(Prepared::Occupied { leaving }) = residency.prepare(&["b"]) else { panic!() };
    assert_eq!(leaving, ["a"]);
    drop(hold);
    load(&mut residency, "b");
    assert_eq!(here(&residency), ["b"]);
}

#[test]
fn one_model_comes_at_a_time_and_takes_its_memory_from_the_beginning() {
    let mut residency = start(&[("a", 4), ("b", 4), ("c", 4)], settings(8)).unwrap();
    assert!(matches!(residency.prepare(&["c"]), Ok(Prepared::Load(_))));
    assert_eq!((here(&residency), residency.taken()), (vec!["b"], 8));
    assert!(matches!(residency.prepare(&["c"]), Ok(Prepared::Loading)));
    assert!(matches!(residency.prepare(&["a"]), Ok(Prepared::Loading)));
    assert!(matches!(residency.prepare(&["b"]), Ok(Prepared::Ready)));
}

#[test]
fn a_model_that_fails_is_not_tried_again_before_its_time_and_makes_nobody_leave() {
    let bytes = Arc::new(AtomicU64::new(0));
    for (retry, is_tried) in [(Duration::MAX, false), (Duration::ZERO, true)] {
        bytes.store(0, Ordering::SeqCst);
        let sources: Vec<Box<dyn ModelSource<_>>> =
            vec![Box::new(Named("a", Arc::new(4.into()))), Box::new(Named("b", bytes.clone()))];
        let mut residency = Residency::start(sources, ResidencySettings { retry, ..settings(4) }).unwrap();
        let error = residency.prepare(&["b"]).unwrap_err();
        assert_eq!(error.to_string(), "the model \"b\" cannot be loaded: unet/a.safetensors: cut short");
        bytes.store(4, Ordering::SeqCst);
        assert_eq!(residency.prepare(&["b"]).is_ok(), is_tried);
        assert_eq!(here(&residency).is_empty(), is_tried);
    }
}

#[test]
fn a_model_larger_than_all_memory_says_so_and_the_others_are_served() {
    let mut residency = start(&[("a", 9 * MIB), ("b", 4 * MIB)], settings(8 * MIB)).unwrap();
    assert_eq!(here(&residency), ["b"]);
    let problem = residency.prepare(&["a"]).unwrap_err().to_string();
    assert_eq!(problem, "the model \"a\" cannot be loaded: its weights take 9 MiB, and device.model_memory_mib is 8");
    assert!(start(&[("a", 9 * MIB)], settings(8 * MIB)).is_err(), "none can be used");
}

#[test]
fn a_device_that_is_out_of_memory_holds_so_many_models_and_no_more() {
    let mut residency = start(&[("a", 4), ("b", 4), ("c", 4)], ResidencySettings { memory: None, ..settings(0) }).unwrap();
    residency.entries[2].state = Place::Coming { since: Instant::now() };
    residency.install("c", Err(EngineError::OutOfMemory("CUDA".to_owned()))).unwrap();
    load(&mut residency, "c");
    assert_eq!(here(&residency), ["b", "c"]);
    let mut alone = start(&[("a", 4), ("b", 0)], ResidencySettings::default()).unwrap();
    alone.entries[0].state = Place::Coming { since: Instant::now() };
    let error = alone.install("a", Err(EngineError::OutOfMemory("CUDA".to_owned()))).unwrap_err();
    assert_eq!(error.code(), "model_unavailable");
}

#[test]
fn a_job_of_two_models_has_both_at_once_or_learns_that_they_never_fit() {
    let mut residency = start(&[("a", 4), ("b", 4), ("c", 4), ("d", 6)], settings(8)).unwrap();
    drop(wanted(&mut residency, "b"));
    drop(wanted(&mut residency, "a"));
    let Ok(Prepared::Load(ModelLoad { model, work })) = residency.prepare(&["b", "c"]) else { panic!() };
    residency.install(&model, work()).unwrap();
    assert_eq!(here(&residency), ["b", "c"], "b stays though it was used before a");
    assert!(matches!(residency.prepare(&["b", "c"]), Ok(Prepared::Ready)));
    assert_eq!(residency.prepare(&["c", "d"]).unwrap_err().code(), "model_unavailable");
    let hold = wanted(&mut residency, "c");
    let Ok(Prepared::Occupied { leaving }) = residency.prepare(&["b", "a"]) else { panic!() };
    assert_eq!(leaving, ["c"]);
    drop(hold);
}

#[test]
fn a_model_that_must_leave_for_a_job_is_not_spared_for_another_that_was_used_less_lately() {
    let mut residency = start(&[("a", 4), ("b", 4), ("c", 4)], settings(8)).unwrap();
    let [of_a, of_b] = ["a", "b"].map(|name| wanted(&mut residency, name));
    for used in [&of_b, &of_a, &of_b] {
        let Ok(Prepared::Occupied { leaving }) = residency.prepare(&["c"]) else { panic!() };
        assert_eq!(leaving, ["a"]);
        residency.note_use(used.model());
    }
    drop(of_a);
    load(&mut residency, "c");
    assert_eq!(here(&residency), ["b", "c"]);
}

#[test]
fn a_job_of_two_models_that_the_device_has_no_room_for_learns_so_and_each_is_served_alone() {
    let mut residency = start(&[("a", 4), ("b", 4), ("c", 2)], ResidencySettings::default()).unwrap();
    for gone in ["b", "c"] {
        let place = residency.find(gone).unwrap();
        residency.entries[place].state = Place::Away;
    }
    let out_of_memory = || Err(EngineError::OutOfMemory("CUDA".to_owned()));
    let Ok(Prepared::Load(_)) = residency.prepare(&["a", "b"]) else { panic!() };
    residency.install("b", out_of_memory()).unwrap();
    let error = residency.prepare(&["a", "b"]).unwrap_err().to_string();
    assert!(error.ends_with("together they take 1 MiB, and the device was out of memory before it had both"), "{error}");
    load(&mut residency, "b");
    assert_eq!(here(&residency), ["b"]);
    let (bytes, when) = residency.seen.unwrap();
    residency.seen = Some((bytes, when - SEEN_FOR));
    assert!(matches!(residency.prepare(&["a", "b"]), Ok(Prepared::Load(_))), "the memory may be free by now");
}

#[test]
fn models_that_nobody_holds_or_waits_for_leave_for_what_is_painted_the_least_recently_used_first() {
    let mut residency = start(&[("a", 4), ("b", 4), ("c", 4), ("d", 4)], ResidencySettings::default()).unwrap();
    let hold = wanted(&mut residency, "a");
    drop(wanted(&mut residency, "b"));
    assert!(residency.evict_idle(&["d"]));
    assert_eq!(here(&residency), ["a", "b", "d"]);
    assert!(residency.evict_idle(&["d"]));
    assert!(!residency.evict_idle(&["d"]));
    assert_eq!(here(&residency), ["a", "d"]);
    drop(hold);
}

#[test]
fn a_model_that_has_just_come_for_a_job_is_not_the_first_to_leave() {
    let mut residency = start(&[("a", 4), ("b", 4), ("c", 4)], settings(8)).unwrap();
    drop(wanted(&mut residency, "b"));
    load(&mut residency, "c");
    assert!(residency.evict_idle(&[]));
    assert_eq!(here(&residency), ["c"], "its job has not begun yet");
}

#[test]
fn a_model_that_has_just_been_used_rests_for_a_while_and_leaves_all_the_same() {
    let rest = Duration::from_secs(3600);
    let mut residency = start(&[("a", 4), ("b", 4)], ResidencySettings { rest, ..settings(4) }).unwrap();
    let model = wanted(&mut residency, "a").model();
    residency.entries[0].loaded_in = rest / 2;
    residency.note_use(model);
    let rests = |residency: &Residency<_>| residency.reports()[0].rests_until.unwrap().saturating_duration_since(Instant::now());
    assert!((rest / 4..=rest / 2).contains(&rests(&residency)), "as long as it took to load");
    residency.settings.rest = Duration::ZERO;
    assert_eq!(rests(&residency), Duration::ZERO);
    load(&mut residency, "b");
    assert!(residency.reports()[0].rests_until.is_none());
}
