//! The event bus of a server that is one process: a broadcast channel for each job that runs here or that somebody watches.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::broadcast;

use super::{
    ports::{EventBus, Numbered, Subscription},
    shared::lock,
};
use crate::domain::{Event, EventId, JobId, Progress};

/// Events that a watcher may lie behind before it loses the oldest.
const RING: usize = 64;
/// Channels that may be open before those that nobody needs are looked for.
const FIRST_SWEEP: usize = 64;

/// Carries events within this process.
///
/// One lock guards all channels, so that an event gets its number and its place in the channel in one go. It is held for a map
/// look-up and a send that never waits, and never across an await.
#[derive(Debug)]
pub struct LocalEvents(Mutex<Channels>);

#[derive(Debug)]
struct Channels {
    open: HashMap<JobId, Channel>,
    /// The number of channels at which the next sweep is due.
    sweep_at: usize,
    closed: bool,
}

#[derive(Debug)]
struct Channel {
    sender: broadcast::Sender<Numbered>,
    last_id: Option<EventId>,
    progress: Option<Progress>,
    /// The attempt that runs here.
    attempt: Option<u32>,
    /// Held once here, and once by each watcher who looks at no previews.
    without_previews: Arc<()>,
}

impl Channel {
    fn new() -> Self {
        let sender = broadcast::Sender::new(RING);
        Self { sender, last_id: None, progress: None, attempt: None, without_previews: Arc::default() }
    }

    fn is_needed(&self) -> bool {
        self.attempt.is_some() || self.sender.receiver_count() > 0
    }

    /// Takes note of the event; `false` for one that comes too late: a preview of a run that is over, or a place in the queue that the
    /// job has left.
    fn note(&mut self, event: &Event) -> bool {
        let runs_here = self.attempt.is_some();
        match event {
            Event::Progress(progress) if runs_here => self.progress = Some(*progress),
            Event::Started | Event::Preview(_) | Event::Progress(_) => return runs_here,
            Event::Queued { .. } => return !runs_here,
            Event::Finished(_) => {}
        }
        true
    }

    fn send(&mut self, id: EventId, event: Event) {
        self.last_id = Some(id);
        // An error only says that nobody watches.
        let _ = self.sender.send(Numbered { id, event, rendered: Arc::default() });
    }
}

impl Default for LocalEvents {
    fn default() -> Self {
        Self(Mutex::new(Channels { open: HashMap::new(), sweep_at: FIRST_SWEEP, closed: false }))
    }
}

impl Channels {
    /// The job's channel; made when there is none. Amortised, a sweep costs each new channel a constant time.
    fn channel(&mut self, job: JobId) -> &mut Channel {
        if self.open.len() >= self.sweep_at {
            self.open.retain(|_, channel| channel.is_needed());
            self.sweep_at = FIRST_SWEEP.max(2 * self.open.len());
        }
        self.open.entry(job).or_insert_with(Channel::new)
    }
}

impl EventBus for LocalEvents {
    fn begin_attempt(&self, job: JobId, attempt: u32) {
        let mut channels = lock(&self.0);
        if !channels.closed {
            let channel = channels.channel(job);
            (channel.attempt, channel.progress, channel.last_id) = (Some(attempt), None, Some(EventId::start_of(attempt)));
        }
    }

    fn end_attempt(&self, job: JobId, attempt: u32) {
        let mut channels = lock(&self.0);
        if let Some(channel) = channels.open.get_mut(&job).filter(|channel| channel.attempt == Some(attempt)) {
            (channel.attempt, channel.progress) = (None, None);
        }
    }

    fn continue_from(&self, job: JobId, attempts: u32) {
        if let Some(channel) = lock(&self.0).open.get_mut(&job) {
            channel.last_id = channel.last_id.max(Some(EventId::start_of(attempts)));
        }
    }

    fn publish(&self, job: JobId, event: Event) {
        let mut channels = lock(&self.0);
        if let Event::Finished(ended) = &event {
            let id = EventId::end_of(ended.attempts);
            if let Some(mut channel) = channels.open.remove(&job) {
                channel.send(id, event);
            }
            return;
        }
        let Some(channel) = channels.open.get_mut(&job) else { return };
        if channel.note(&event) {
            let id = channel.last_id.unwrap_or(EventId::start_of(0)).next();
            channel.send(id, event);
        }
    }

    fn subscribe(&self, job: JobId) -> Subscription {
        let mut channels = lock(&self.0);
        if channels.closed {
            return Subscription { last_id: None, events: broadcast::Sender::new(1).subscribe(), without_previews: None };
        }
        let channel = channels.channel(job);
        Subscription { last_id: channel.last_id, events: channel.sender.subscribe(), without_previews: None }
    }

    fn subscribe_without_previews(&self, job: JobId) -> Subscription {
        let subscription = self.subscribe(job);
        let counted = lock(&self.0).open.get(&job).map(|channel| Arc::clone(&channel.without_previews));
        Subscription { without_previews: counted, ..subscription }
    }

    fn progress(&self, job: JobId) -> Option<Progress> {
        lock(&self.0).open.get(&job)?.progress
    }

    fn wants_previews(&self, job: JobId) -> bool {
        let wanted = |channel: &Channel| channel.sender.receiver_count() >= Arc::strong_count(&channel.without_previews);
        lock(&self.0).open.get(&job).is_some_and(wanted)
    }

    fn watched(&self) -> Vec<JobId> {
        let channels = lock(&self.0);
        channels.open.iter().filter(|(_, channel)| channel.sender.receiver_count() > 0).map(|(job, _)| *job).collect()
    }

    fn close(&self) {
        let mut channels = lock(&self.0);
        channels.closed = true;
        channels.open.clear();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use broadcast::error::{RecvError, TryRecvError};

    use super::*;
    use crate::domain::{Job, ModelInfo, Submission, Task};

    /// A job of one picture that has been claimed so often.
    pub(in super::super) fn job(attempts: u32) -> Job {
        let model = ModelInfo {
            name: "demo".to_owned(),
            family: crate::domain::Family::StableDiffusion1,
            tasks: vec![Task::Text2img, Task::Img2img, Task::Inpainting],
            unsupported_fields: Vec::new(),
            refiners: Vec::new(),
            prompt_tokens: 77,
            default_num_inference_steps: 25,
            default_width: 128,
            default_height: 128,
            size_multiple: 8,
            min_size: 64,
            max_size: 256,
            default_guidance_scale: 5.0,
            default_scheduler: crate::domain::SchedulerName::parse("ddim").unwrap(),
            scheduler_limits: Vec::new(),
        };
        let submission = Submission::parse(serde_json::json!({"prompt": "a house"}), &[model], 1).unwrap();
        Job { attempts, ..Job::queued(&submission, "request") }
    }

    fn progress(step: u32) -> Event {
        let progress = Progress { step, num_inference_steps: 99, fraction: 0.0, steps_per_second: 0.0, eta_seconds: 0.0 };
        Event::Progress(progress)
    }

    #[tokio::test]
    async fn numbers_rise_from_the_attempt_and_end_with_its_last() {
        let (bus, job) = (LocalEvents::default(), job(2));
        let mut watcher = bus.subscribe(job.id);
        assert_eq!(watcher.last_id, None);
        bus.publish(job.id, Event::Queued { queue_position: 1, eta_seconds: None });
        bus.begin_attempt(job.id, 2);
        bus.publish(job.id, Event::Started);
        bus.publish(job.id, Event::Finished(Arc::new(job.clone())));
        let mut ids = Vec::new();
        while let Ok(numbered) = watcher.events.recv().await {
            ids.push(numbered.id.get());
        }
        assert_eq!(ids, [1, 2_000_001, 2_999_999]);
    }

    #[tokio::test]
    async fn a_slow_watcher_loses_the_oldest_and_gets_the_end() {
        let (bus, job) = (LocalEvents::default(), job(1));
        let mut watcher = bus.subscribe(job.id);
        bus.begin_attempt(job.id, 1);
        (1..=99).for_each(|step| bus.publish(job.id, progress(step)));
        bus.publish(job.id, Event::Finished(Arc::new(job.clone())));
        assert!(matches!(watcher.events.recv().await, Err(RecvError::Lagged(36))));
        let mut last = None;
        while let Ok(numbered) = watcher.events.recv().await {
            last = Some(numbered.event);
        }
        assert!(matches!(last, Some(Event::Finished(_))));
    }

    #[test]
    fn previews_are_wanted_while_somebody_looks_at_them() {
        let (bus, job) = (LocalEvents::default(), job(1));
        bus.begin_attempt(job.id, 1);
        assert!(!bus.wants_previews(job.id));
        let waits = [bus.subscribe_without_previews(job.id), bus.subscribe_without_previews(job.id)];
        assert!(!bus.wants_previews(job.id));
        let looks = bus.subscribe(job.id);
        assert!(bus.wants_previews(job.id));
        drop(waits);
        assert!(bus.wants_previews(job.id));
        drop(looks);
        assert!(!bus.wants_previews(job.id));
    }

    #[test]
    fn nothing_follows_the_end() {
        let (bus, job) = (LocalEvents::default(), job(1));
        bus.begin_attempt(job.id, 1);
        bus.publish(job.id, Event::Finished(Arc::new(job.clone())));
        let mut late = bus.subscribe(job.id);
        bus.publish(job.id, progress(3));
        assert!(matches!(late.events.try_recv(), Err(TryRecvError::Empty)));
        assert_eq!(bus.progress(job.id), None);
    }

    #[test]
    fn channels_that_nobody_needs_vanish() {
        let bus = LocalEvents::default();
        let running = JobId::random();
        bus.begin_attempt(running, 1);
        let watched: Vec<Subscription> = (0..10).map(|_| bus.subscribe(JobId::random())).collect();
        (0..10_000).for_each(|_| drop(bus.subscribe(JobId::random())));
        assert!(lock(&bus.0).open.len() <= FIRST_SWEEP);
        assert!(lock(&bus.0).open.contains_key(&running));
        assert_eq!(bus.watched().len(), watched.len());
    }

    #[test]
    fn a_job_that_goes_back_to_the_queue_has_no_progress() {
        let (bus, job) = (LocalEvents::default(), job(1));
        bus.begin_attempt(job.id, 1);
        bus.publish(job.id, progress(3));
        assert!(bus.progress(job.id).is_some());
        bus.end_attempt(job.id, 1);
        assert!(bus.progress(job.id).is_none());
    }

    #[test]
    fn what_was_read_of_the_queue_before_a_job_began_does_not_silence_it() {
        let (bus, job) = (LocalEvents::default(), job(2));
        let mut watcher = bus.subscribe(job.id);
        bus.begin_attempt(job.id, 2);
        bus.publish(job.id, Event::Queued { queue_position: 1, eta_seconds: None });
        // Nor does the late end of an attempt that another has followed.
        bus.end_attempt(job.id, 1);
        bus.publish(job.id, progress(3));
        assert!(matches!(watcher.events.try_recv().unwrap().event, Event::Progress(_)));
        assert!(bus.progress(job.id).is_some());
    }

    #[test]
    fn the_numbers_of_a_job_that_ran_before_this_process_began_go_on_rising() {
        let (bus, job) = (LocalEvents::default(), job(2));
        let mut watcher = bus.subscribe(job.id);
        bus.continue_from(job.id, job.attempts);
        bus.publish(job.id, Event::Queued { queue_position: 1, eta_seconds: None });
        bus.continue_from(job.id, job.attempts);
        bus.publish(job.id, Event::Queued { queue_position: 2, eta_seconds: None });
        let ids = [watcher.events.try_recv(), watcher.events.try_recv()].map(|event| event.unwrap().id.get());
        assert_eq!(ids, [2_000_001, 2_000_002]);
    }

    #[tokio::test]
    async fn a_closed_bus_ends_every_stream_and_begins_none() {
        let (bus, job) = (LocalEvents::default(), job(1));
        let mut early = bus.subscribe(job.id);
        bus.close();
        let mut late = bus.subscribe(job.id);
        assert!(matches!(early.events.recv().await, Err(RecvError::Closed)));
        assert!(matches!(late.events.recv().await, Err(RecvError::Closed)));
    }
}
