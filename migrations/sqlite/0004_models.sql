-- The model of each job, so that a claim finds the first job of each model that has some.

ALTER TABLE jobs ADD COLUMN model TEXT NOT NULL DEFAULT '';
UPDATE jobs SET model = coalesce(json_extract(request, '$.model'), '') WHERE json_valid(request);

-- Whoever claims says that it is meant (INDEXED BY).
CREATE INDEX jobs_queued_model ON jobs (model, turn_ms, seq) WHERE status = 'queued';
