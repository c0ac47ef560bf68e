-- Jobs, from their POST to their end.
--
-- Times that people read are RFC 3339 in UTC with nine digits after the point, so that they sort as text. Only leases are compared
-- with the clock, and the queue's order is never taken from it.
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,                       -- the queue's order
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    created_at TEXT NOT NULL,
    started_at TEXT,                                             -- of the last claim
    finished_at TEXT,
    request TEXT NOT NULL,                                       -- JSON, as understood
    request_id TEXT NOT NULL,
    warnings TEXT NOT NULL,                                      -- JSON
    images TEXT NOT NULL DEFAULT '[]',                           -- JSON
    error TEXT,                                                  -- JSON
    timings TEXT,                                                -- JSON, once it has ended
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),   -- claims so far: the fencing number
    cancel_requested INTEGER NOT NULL DEFAULT 0 CHECK (cancel_requested IN (0, 1)),
    worker_id TEXT,                                              -- who has claimed it
    lease_expires_at INTEGER,                                    -- milliseconds since 1970
    suspect INTEGER NOT NULL DEFAULT 0 CHECK (suspect IN (0, 1)),  -- has lost a lease before
    alone INTEGER NOT NULL DEFAULT 0 CHECK (alone IN (0, 1)),    -- the present claim has the device for itself
    strikes INTEGER NOT NULL DEFAULT 0 CHECK (strikes >= 0),     -- leases lost while alone
    CHECK ((status = 'running') = (lease_expires_at IS NOT NULL)),
    CHECK ((status = 'running') = (worker_id IS NOT NULL)),
    CHECK ((status IN ('succeeded', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK ((status = 'failed') = (error IS NOT NULL)),
    CHECK (alone = 0 OR status = 'running')
) STRICT;

-- Finished jobs are many; those that wait or run are few and are asked for all the time.
CREATE INDEX jobs_queued ON jobs (seq) WHERE status = 'queued';
CREATE INDEX jobs_running ON jobs (lease_expires_at) WHERE status = 'running';
