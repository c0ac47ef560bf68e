-- All models of each job, its own and the refiner's, so that a claim finds the first job of each such set.

DROP INDEX jobs_queued_model;
ALTER TABLE jobs ADD COLUMN models TEXT NOT NULL DEFAULT '[]';              -- a JSON array of names
UPDATE jobs SET models = CASE
    WHEN json_extract(request, '$.refiner') IS NULL THEN json_array(model)
    ELSE json_array(model, json_extract(request, '$.refiner'))
END WHERE json_valid(request);
ALTER TABLE jobs DROP COLUMN model;

-- Whoever claims says that it is meant (INDEXED BY).
CREATE INDEX jobs_queued_models ON jobs (models, turn_ms, seq) WHERE status = 'queued';
