/* store.h - everything that must survive: jobs, trials, names of blobs, the history of teachers. SQLite, and the only
 * folder of the project that says "sqlite3".
 *
 * Writing. One thread owns the connection that writes. The loop hands it operations; whatever arrived while the last
 * commit ran becomes the next transaction (group commit, synchronous=FULL). An operation's `done` runs on the loop's
 * thread, inside store_pump(), after the commit: whoever acknowledges from there keeps the promise that what was
 * acknowledged survives kill -9 and power loss. Operations take effect, and report, in the order in which they were put.
 * Failure. When a commit fails (disk full, I/O error) every operation of the group reports -ERR_IO and has changed
 * nothing; the store stays usable and the next group is tried anew.
 * Reading. People's questions go through a struct reader: a connection of its own, read-only, every answer bounded.
 * Thread: store_put/pump/flush/close and readers on the thread that opened them. */
#ifndef DIDACT_COORDINATOR_STORE_H
#define DIDACT_COORDINATOR_STORE_H

#include "common/book.h"
#include "common/err.h"
#include "common/job.h"
#include "common/wire.h"

#include <stdint.h>

#define STORE_VERSION 7 /* of the schema; PRAGMA user_version */

enum trial_group { GROUP_NONE, GROUP_TOP, GROUP_RANDOM, GROUP_LIST, GROUP_AUDIT, GROUP_CONTROL, GROUP_WARMUP, GROUP_COUNT };
const char *trial_group_name(enum trial_group g); /* "" "top" "random" "list" "audit" "control" "warmup" */

/* Trials of a search that its standing audit adds: the real training of candidate i, and its score on real batches. They are no
 * candidates: every list but SORT_AUDIT leaves them out. So are a warm-up's (SORT_WARMUP). */
#define TRIAL_AUDIT   1000000000ull /* + i; budget.trials stays below */
#define TRIAL_CONTROL 2000000000ull
#define TRIAL_WARMUP  3000000000ull /* + i: the i-th candidate of a warm-up that workers vote on */

struct job_counts {
    uint64_t scored, failed, cancelled, reason[FAIL_REASON_COUNT];
};

struct job_row {
    uint64_t          id;
    name_str          name;
    enum job_kind     kind;
    enum job_state    state;
    int64_t           created_ms, started_ms, ended_ms; /* 0: not yet */
    char              reason[256];
    struct job_counts n;          /* exact once the job has ended; before that the scheduler knows better */
    int64_t           idle_ms;    /* ended before it was opened again: no part of its budget of time */
    int64_t           best_trial; /* -1: none */
    uint64_t          total;      /* trials of a fixed list (verify, teach); 0: as the search goes */
    char             *spec_json;  /* owned where a function fills the row; job_row_fini */
};
void job_row_fini(struct job_row *r);

struct trial_row {
    uint64_t            job, idx;
    enum trial_state    state;
    char                arch[ARCH_TEXT_MAX];
    char                arch_hash[ARCH_HASH_LEN + 1];
    int64_t             parent;     /* index of the trial it was mutated from, or that it audits; -1: none */
    uint64_t            seed;
    uint32_t            attempt, deaths;
    name_str            worker;     /* the last that held it */
    uint64_t            worker_pid;
    int                 rung;       /* search: of successive halving; parent is then the trial it goes on from */
    enum trial_group    group;      /* verify, audit */
    double              proxy;      /* of these: the score that the search gave; NaN: none */
    int64_t             created_ms, ended_ms;
    bool                from_book;  /* answered by the score book, without a worker */
    name_str            tag, request; /* proposed from outside: the proposer's own word, and the key of its request ("": none) */
    hash_str            checkpoint; /* teach: the newest checkpoint that a worker has uploaded */
    bool                told_failed; /* the searcher knows it as failed: it did, before it was tried again */
    struct trial_result r;          /* valid in the states scored and failed; a trial that waits to be tried again keeps its reason */
};

struct event_row { /* something that was done to a job, or to a trial of it */
    int64_t  at_ms, trial; /* -1: the job as a whole */
    name_str kind;         /* "set" "extend" "retry" "finish" */
    char     text[400];
};

struct teach_point { /* one row of a teacher's history */
    uint64_t job;
    double   meta_step, seconds, meta_loss, accuracy, held_out; /* NaN: not measured at this step */
};

/* What the surroundings did to a trial, and other surroundings may not do; nan and input are facts of the architecture. */
#define RETRY_REASONS "('timeout','crash','oom')"

enum store_kind {
    OP_JOB_INSERT,       /* job, with `trials` (may be none) */
    OP_JOB_STATE,        /* job.id, state, started_ms, reason */
    OP_JOB_END,          /* the same, with counts, best and ended_ms; its unfinished trials become cancelled */
    OP_JOB_SPEC,         /* job.id, spec_json; `event` */
    OP_JOB_REOPEN,       /* job.id, state, spec_json, idle_ms; `event`, `retry`: an ended job lives again. -ERR_STATE: it has not ended */
    OP_TRIAL_PROPOSE,    /* job.id, with `trials`: new ones that wait, proposed from outside; all or none */
    OP_TRIAL_RETRY,      /* job.id, event.at_ms: its failed trials that may be tried again (RETRY_REASONS) wait; `n_retried` */
    OP_TRIAL_LEASE,      /* trial: inserts or updates; state running */
    OP_TRIAL_REWAIT,     /* trial: waiting again, deaths */
    OP_TRIAL_RESULT,     /* trial.job, idx, attempt, r, ended_ms; `outcome` says what came of it */
    OP_TRIAL_BOOKED,     /* trial: a new one, or one that waits for its first lease, that the score book answers, with r and ended_ms */
    OP_BOOK_ADD,         /* book: rows of another book, all or none; a row of the same key with other numbers is -ERR_STATE and named */
    OP_TRIAL_CHECKPOINT, /* trial.job, idx, attempt, checkpoint */
    OP_TEACH_POINT,
    OP_BLOB_NAME,
    OP_PROBE,            /* writes a row of its own: is the store writable? */
    OP_KIND_COUNT
};

struct store_op {
    enum store_kind kind;
    void (*done)(struct store_op *op); /* may be NULL. The store frees op afterwards */
    void *arg, *arg2;
    uint64_t tag;
    int   rc;                          /* 0 or a negative error, once done */
    enum ack_outcome outcome;          /* OP_TRIAL_RESULT */
    struct event_row event;            /* OP_JOB_SPEC, _REOPEN, OP_TRIAL_RETRY; kind "": none */
    bool  retry;                       /* OP_JOB_REOPEN: OP_TRIAL_RETRY too */
    uint64_t n_retried;
    struct book_row *filed;            /* OP_TRIAL_RESULT: goes into the book with the result; owned, NULL: does not */
    bool conflict;                     /* of that: the book has other numbers under this key, and keeps them */
    struct errbuf err;
    struct store_op *next;
    union {
        struct { struct job_row row; struct trial_row *trials; size_t n_trials; } job; /* spec_json, trials: owned */
        struct trial_row trial;
        struct teach_point point;
        struct { struct book_row *row; size_t n, first, added; bool check_only, remove; } book; /* row: owned; first: its number, for messages */
        struct { name_str kind, name; hash_str hash; uint64_t bytes; int64_t added_ms; } blob;
    };
};
struct store_op *store_op_new(enum store_kind kind); /* zeroed; NULL when memory is out */

struct store_cfg {
    void (*wake)(void *arg);  /* called from the store's thread: completions wait for store_pump. May be NULL */
    void *wake_arg;
    int  (*fault)(void *arg); /* tests: called before each commit; a non-zero enum err makes it fail */
    void *fault_arg;
};

struct store_stats { uint64_t commits, rows, failures; bool failing; uint64_t queued; };

struct store;
/* Opens or creates; runs migrations; -ERR_VERSION for a newer database, -ERR_CORRUPT for a damaged one (nothing changed). */
int  store_open(struct store **out, const char *path, const struct store_cfg *cfg, struct errbuf *e);
void store_put(struct store *s, struct store_op *op); /* takes op */
int  store_pump(struct store *s);                     /* runs completions that wait; returns how many */
void store_flush(struct store *s);                    /* waits for all that was put, pumping, until nothing is left */
void store_close(struct store *s);                    /* flushes, then closes; NULL is fine */
void store_stats(struct store *s, struct store_stats *out);

/* ---- reading ---- */
struct reader;
int  reader_open(struct reader **out, const char *path, struct errbuf *e);
void reader_close(struct reader *r);

uint64_t reader_last_job(struct reader *r);
/* Functions of type int(...) return rows seen, 0 or more, or a negative error. Callbacks return false to stop. */
int reader_job(struct reader *r, uint64_t id, struct job_row *out); /* 1 found, 0 not */
/* The newest job of exactly this name, else the jobs whose name begins so: up to `cap` ids, newest first; returns how many. */
int reader_job_bearers(struct reader *r, const char *name, uint64_t *ids, int cap); /* of exactly this name, newest first */
int reader_job_named(struct reader *r, const char *name, uint64_t *ids, int cap);
int reader_jobs(struct reader *r, int state, uint64_t offset, int limit, bool (*on)(void *arg, struct job_row *row), void *arg);
int reader_active_jobs(struct reader *r, bool (*on)(void *arg, struct job_row *row), void *arg); /* not ended, by id; no limit */
int reader_job_states(struct reader *r, uint64_t n[JOB_STATE_COUNT], struct job_counts *ended);

enum trial_sort { SORT_INDEX, SORT_SCORE, SORT_VALID, SORT_AUDIT, SORT_WARMUP };
int reader_trial(struct reader *r, uint64_t job, uint64_t idx, struct trial_row *out); /* 1, 0 */
/* state -1: any. SORT_SCORE gives scored trials only, the highest rung first, in it best first, ties by index; SORT_VALID
 * those of a verify job, the best on the validation images first; SORT_AUDIT an audit's
 * and SORT_WARMUP a warm-up's (state: -1), by index. limit <= 0: all. */
int reader_trials(struct reader *r, uint64_t job, int state, enum trial_sort sort, uint64_t offset, int64_t limit,
                  bool (*on)(void *arg, const struct trial_row *row), void *arg);
/* Trials from index `from` on, in their order. */
int reader_trials_from(struct reader *r, uint64_t job, uint64_t from, int limit, bool (*on)(void *arg, const struct trial_row *row), void *arg);
/* What the request of this key proposed, in order. */
int reader_request(struct reader *r, uint64_t job, const char *request, bool (*on)(void *arg, const struct trial_row *row), void *arg);
/* What was done, newest first; of one trial, or (-1) of the job and all of its trials. */
int reader_events(struct reader *r, uint64_t job, int64_t trial, int limit, bool (*on)(void *arg, const struct event_row *ev), void *arg);
int reader_teach_points(struct reader *r, uint64_t job, int limit, bool (*on)(void *arg, const struct teach_point *p), void *arg);

struct blob_name { name_str kind, name; hash_str hash; uint64_t bytes; int64_t added_ms; };
/* By name, else by hash or its first 12 or more characters. */
int reader_blob(struct reader *r, const char *kind, const char *name_or_hash, struct blob_name *out); /* 1, 0 */
int reader_blobs(struct reader *r, const char *kind, int limit, bool (*on)(void *arg, const struct blob_name *b), void *arg);

/* The score book. Rows come in the order of their keys. */
int reader_book(struct reader *r, const char *key, struct book_row *out);                  /* 1, 0 */
/* Is there any row of this dataset, curriculum, fidelity and engine? 1, 0 */
int reader_book_any(struct reader *r, const char *dataset, const char *curriculum, const char *fidelity, const char *engine);
int reader_book_rows(struct reader *r, const char *after_key, int limit, bool (*on)(void *arg, const char *key, const struct book_row *b), void *arg);
int reader_book_count(struct reader *r, uint64_t *n);
uint64_t reader_db_bytes(struct reader *r);

#endif
