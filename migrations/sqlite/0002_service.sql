-- Owners, priorities that age, removal, retries, idempotency keys and a queue that can be paused.

ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';                -- the name of the key that brought it; '' is nobody's
ALTER TABLE jobs ADD COLUMN retry_of TEXT;                                 -- the job that this one runs again
ALTER TABLE jobs ADD COLUMN input_sha256 TEXT;                             -- the picture that it starts from
ALTER TABLE jobs ADD COLUMN removal_requested INTEGER NOT NULL DEFAULT 0 CHECK (removal_requested IN (0, 1));
-- The queue's order. A turn is the time of arrival less a bonus for priority, in milliseconds, so that waiting makes up for priority and
-- nothing starves, and a turn never changes while a job waits. Arrivals are told by a clock of the store's own that never goes back.
ALTER TABLE jobs ADD COLUMN arrived_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN turn_ms INTEGER NOT NULL DEFAULT 0;

-- Jobs of before had the middle priority, 5, and no picture but in their request.
UPDATE jobs SET arrived_ms = coalesce(CAST(unixepoch(created_at, 'subsec') * 1000 AS INTEGER), 0);
UPDATE jobs SET turn_ms = arrived_ms - 5 * 60000;
UPDATE jobs SET input_sha256 = json_extract(request, '$.image.sha256') WHERE json_valid(request);

DROP INDEX jobs_queued;
CREATE INDEX jobs_queued ON jobs (turn_ms, seq) WHERE status = 'queued';
CREATE INDEX jobs_owner ON jobs (owner, seq);
-- As long as all that is kept, so whoever counts the queue must say that it is not meant (INDEXED BY).
CREATE INDEX jobs_owner_status ON jobs (owner, status, seq);
CREATE INDEX jobs_finished ON jobs (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX jobs_input ON jobs (input_sha256) WHERE input_sha256 IS NOT NULL;

-- Jobs that are gone: so that asking for one is answered 410 and not 404.
CREATE TABLE removed_jobs (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    removed_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX removed_jobs_removed_at ON removed_jobs (removed_at);

-- Which job a client's own name for a request has brought.
CREATE TABLE idempotency_keys (
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    job_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    PRIMARY KEY (owner, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_created_at ON idempotency_keys (created_at);

-- This store's own name, which its picture folder bears, too: one row.
CREATE TABLE identity (
    name TEXT NOT NULL
) STRICT;
INSERT INTO identity (name) VALUES (lower(hex(randomblob(16))));

-- The queue's own state: one row.
CREATE TABLE queue (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1))
) STRICT;
INSERT INTO queue (id) VALUES (1);
