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
    /* 1 -> 2 */
    "",
    /* 2 -> 3: rungs of successive halving; a higher rung's scores come first */
    "ALTER TABLE trial ADD COLUMN rung INTEGER NOT NULL DEFAULT 0;"
    "DROP INDEX trial_by_score;"
    "CREATE INDEX trial_by_rung ON trial(job, rung DESC, score DESC, idx) WHERE state='scored';",
};
