/* schema.c - the numbered migrations. Append only: what was released is never edited. Each runs in one transaction
 * together with its user_version. */
#include "coordinator/store/db.h"

const char *const db_migration[STORE_VERSION] = {
    /* 0 -> 1 */
    "CREATE TABLE job("
    " id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, spec TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL, started_ms INTEGER NOT NULL DEFAULT 0, ended_ms INTEGER NOT NULL DEFAULT 0,"
    " reason TEXT NOT NULL DEFAULT '', total INTEGER NOT NULL DEFAULT 0,"
    " scored INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0,"
    " f_nan INTEGER NOT NULL DEFAULT 0, f_oom INTEGER NOT NULL DEFAULT 0, f_timeout INTEGER NOT NULL DEFAULT 0,"
    " f_crash INTEGER NOT NULL DEFAULT 0, f_input INTEGER NOT NULL DEFAULT 0, best_trial INTEGER) STRICT;"
    "CREATE INDEX job_by_name ON job(name, id);"
    "CREATE INDEX job_by_state ON job(state, id);"
    "CREATE TABLE trial("
    " job INTEGER NOT NULL REFERENCES job(id), idx INTEGER NOT NULL, state TEXT NOT NULL,"
    " arch TEXT NOT NULL, arch_hash TEXT NOT NULL, parent INTEGER, seed INTEGER NOT NULL,"
    " attempt INTEGER NOT NULL, deaths INTEGER NOT NULL, worker TEXT NOT NULL DEFAULT '', worker_pid INTEGER NOT NULL DEFAULT 0,"
    " grp TEXT NOT NULL DEFAULT '', proxy REAL, created_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL DEFAULT 0,"
    " checkpoint TEXT NOT NULL DEFAULT '',"
    " reason TEXT NOT NULL DEFAULT '', detail TEXT NOT NULL DEFAULT '', score REAL, score_se REAL,"
    " init_scores TEXT NOT NULL DEFAULT '', checkpoint_steps TEXT NOT NULL DEFAULT '', checkpoint_scores TEXT NOT NULL DEFAULT '',"
    " loss_sum REAL, lr_scale REAL, valid_score REAL, params INTEGER NOT NULL DEFAULT 0, macs INTEGER NOT NULL DEFAULT 0,"
    " meta_steps INTEGER NOT NULL DEFAULT 0, artifact TEXT NOT NULL DEFAULT '', result_checkpoint TEXT NOT NULL DEFAULT '',"
    " seconds REAL, mem_bytes INTEGER NOT NULL DEFAULT 0,"
    " PRIMARY KEY(job, idx)) WITHOUT ROWID, STRICT;"
    "CREATE INDEX trial_by_score ON trial(job, score DESC, idx) WHERE state='scored';"
    "CREATE INDEX trial_open ON trial(job, idx) WHERE state IN ('waiting','running');"
    "CREATE INDEX trial_lost ON trial(job, idx) WHERE state IN ('failed','cancelled');"
    "CREATE TABLE blob_name("
    " kind TEXT NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL, bytes INTEGER NOT NULL, added_ms INTEGER NOT NULL,"
    " PRIMARY KEY(kind, name)) WITHOUT ROWID, STRICT;"
    "CREATE INDEX blob_by_hash ON blob_name(kind, hash);"
    "CREATE TABLE teach_history("
    " job INTEGER NOT NULL REFERENCES job(id), meta_step REAL NOT NULL, seconds REAL NOT NULL,"
    " meta_loss REAL, accuracy REAL, held_out REAL, PRIMARY KEY(job, meta_step)) WITHOUT ROWID, STRICT;"
    "CREATE TABLE probe(id INTEGER PRIMARY KEY CHECK(id=1), at_ms INTEGER NOT NULL) STRICT;",
    /* 1 -> 2: rungs of successive halving; a higher rung's scores come first */
    "ALTER TABLE trial ADD COLUMN rung INTEGER NOT NULL DEFAULT 0;"
    "DROP INDEX trial_by_score;"
    "CREATE INDEX trial_by_rung ON trial(job, rung DESC, score DESC, idx) WHERE state='scored';",
    /* 2 -> 3: scores without training, "synflow=12.5 naswot=210.25" */
    "ALTER TABLE trial ADD COLUMN zero_cost TEXT NOT NULL DEFAULT '';",
    /* 3 -> 4: the score book; key is the digest of the columns space to engine (common/book.h) */
    "ALTER TABLE trial ADD COLUMN from_book INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE book("
    " key TEXT PRIMARY KEY, space TEXT NOT NULL, arch TEXT NOT NULL, arch_hash TEXT NOT NULL, dataset TEXT NOT NULL, curriculum TEXT NOT NULL,"
    " fidelity TEXT NOT NULL, seed INTEGER NOT NULL, engine TEXT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL,"
    " score REAL, score_se REAL, init_scores TEXT NOT NULL, checkpoint_steps TEXT NOT NULL, checkpoint_scores TEXT NOT NULL,"
    " loss_sum REAL, lr_scale REAL, params INTEGER NOT NULL, macs INTEGER NOT NULL, zero_cost TEXT NOT NULL, seconds REAL) WITHOUT ROWID, STRICT;"
    "CREATE INDEX book_by_task ON book(dataset, curriculum, fidelity, engine);",
    /* 4 -> 5: jobs that are changed, and live again after their end. idle_ms: between ends and reopenings, so that budgets in time count
     * the rest. told_failed: the searcher was told that this trial failed, whatever a later attempt brings. */
    "ALTER TABLE job ADD COLUMN idle_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE trial ADD COLUMN told_failed INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE job_event("
    " id INTEGER PRIMARY KEY, job INTEGER NOT NULL REFERENCES job(id), trial INTEGER, at_ms INTEGER NOT NULL, kind TEXT NOT NULL,"
    " text TEXT NOT NULL) STRICT;"
    "CREATE INDEX job_event_by_job ON job_event(job, id);"
    "CREATE INDEX job_event_by_trial ON job_event(job, trial, id) WHERE trial IS NOT NULL;",
    /* 5 -> 6: proposals of an outside searcher: its own word for each, and the key under which a request may come twice */
    "ALTER TABLE trial ADD COLUMN tag TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE trial ADD COLUMN request TEXT NOT NULL DEFAULT '';"
    "CREATE INDEX trial_by_request ON trial(job, request, idx) WHERE request<>'';",
    /* 6 -> 7: what a worker measured of a forward pass; 0: nothing */
    "ALTER TABLE trial ADD COLUMN latency_ms REAL NOT NULL DEFAULT 0;",
};
