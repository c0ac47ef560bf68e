-- The pictures that jobs start from, one row each: a job may have several, and several jobs the same.
CREATE TABLE job_inputs (
    sha256 TEXT NOT NULL,
    job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    PRIMARY KEY (sha256, job_id)
) STRICT, WITHOUT ROWID;
-- For the removal of a job.
CREATE INDEX job_inputs_job ON job_inputs (job_id);

INSERT INTO job_inputs (sha256, job_id) SELECT input_sha256, id FROM jobs WHERE input_sha256 IS NOT NULL;
DROP INDEX jobs_input;
ALTER TABLE jobs DROP COLUMN input_sha256;
