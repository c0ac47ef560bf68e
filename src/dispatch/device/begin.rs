//! Jobs begin: their models come, and then their canvases.

use super::{
    super::{
        guard::{self, Lost},
        ports::{Engine, EngineError, Line, ModelReport, Prepared, PromptLookups},
        work::Work,
    },
    Device,
    told::Piece,
};
use crate::domain::ModelState;

impl<E: Engine> Device<E> {
    /// Gives canvases to the jobs that wait for some, oldest first, as far as there is room and their models are there. While one waits for
    /// its models, a younger one begins only with models that are here and need not leave: it must not take the room of the older one's.
    pub(super) fn begin_waiting(&mut self) -> Result<(), Lost> {
        let mut waiting = 0;
        self.leaving.clear();
        for place in 0..self.jobs.len() {
            let canvases = self.canvases();
            let room = self.shared.settings.max_canvases.saturating_sub(canvases);
            let job = &self.jobs[place];
            if job.unbegun.is_empty() || job.fault.is_some() {
                continue;
            }
            // A younger job must not take the room that an older one waits for.
            if room == 0 || (job.needs_empty_device && canvases > 0) {
                break;
            }
            let request = job.order.request.clone();
            if waiting > 0 && !self.stay(&request.models()) {
                waiting += 1;
                continue;
            }
            match guard::blame(|| self.engine.prepare(&request))? {
                Ok(Prepared::Ready) => self.begin_group(place, room)?,
                Ok(Prepared::Load(work)) => {
                    self.loader.start(work);
                    waiting += 1;
                }
                Ok(Prepared::Loading) => waiting += 1,
                Ok(Prepared::Occupied { leaving }) => {
                    self.leaving = leaving;
                    waiting += 1;
                }
                Err(error) => self.jobs[place].fault = Some(error.into()),
            }
        }
        self.waits_for_model = waiting == self.jobs.len() && self.canvases() == 0;
        self.tell_models();
        Ok(())
    }

    /// Whether all of these models are here and none must leave.
    fn stay(&self, models: &[&str]) -> bool {
        let reports = self.engine.models();
        let stays = |report: &ModelReport| report.status.state == ModelState::Loaded && !self.leaving.contains(&report.model);
        models.iter().all(|model| reports.iter().any(|report| report.model == *model && stays(report)))
    }

    /// Begins the next group of a job. A group that does not fit into memory is tried again later: smaller, or without company.
    fn begin_group(&mut self, place: usize, room: usize) -> Result<(), Lost> {
        let (company, start, from) = (self.canvases(), self.engine.now(), self.engine.mark(Line::Steps));
        let job = &mut self.jobs[place];
        let images = job.next_group(room);
        let order = &job.order;
        let begun = guard::with_room(&mut self.engine, &order.request.models(), |engine| engine.begin(order, images.clone()))?;
        let took = self.engine.now().saturating_duration_since(start);
        job.times.encode += took;
        let PromptLookups { hits, misses } = self.engine.take_prompt_lookups();
        let chunks = &self.shared.doors.metrics.prompt_chunks_total;
        [("hit", hits), ("miss", misses)].iter().for_each(|(cache, count)| chunks.with_label_values(&[*cache]).inc_by(*count));
        match begun {
            Ok(begun) if begun.canvases.len() == images.len() => {
                let Work { kind, sends_pictures, .. } = job.work();
                job.add_group(&images, begun.canvases);
                job.add_warnings(begun.warnings);
                job.needs_empty_device = false;
                self.tell(Piece::Encode { kind, sends_pictures, pictures: images.len() }, from);
            }
            Ok(begun) => {
                let problem = format!("{} canvases for {} pictures", begun.canvases.len(), images.len());
                job.fault = Some(EngineError::Failed(problem).into());
            }
            Err(EngineError::OutOfMemory(_)) if images.len() > 1 => job.group = images.len() / 2,
            Err(EngineError::OutOfMemory(_)) if company > 0 => job.needs_empty_device = true,
            Err(error) => job.fault = Some(error.into()),
        }
        self.looked_ahead = None;
        Ok(())
    }
}
