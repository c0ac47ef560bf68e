-- When each job's pictures are of no use any more, so that those that wait in vain are found without a look at all.

ALTER TABLE jobs ADD COLUMN deadline_ms INTEGER;                            -- by the queue's clock; none for most
CREATE INDEX jobs_deadline ON jobs (deadline_ms) WHERE status = 'queued' AND deadline_ms IS NOT NULL;
