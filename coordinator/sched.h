/* sched.h - the core of the coordinator: jobs, their trials, the workers and who holds what.
 *
 * It knows neither sockets nor files: time, the way to a worker and the images' shape come through struct sched_cfg, what
 * must last goes to the store. So a test runs it with a virtual clock. The rule everywhere: persist, then act, then
 * acknowledge; memory follows the store, in the completions of its operations. A trial that is finished leaves memory: what is
 * kept is each job's window of open trials, never its history.
 *
 * Life of a trial in memory (phase), and what moves it:
 *     WAITING  --a worker wants work-->            LEASING   (the grant is being saved)
 *     LEASING  --saved-->                          RUNNING   (lease sent; deadline set)
 *     RUNNING  --heartbeat that lists it-->        RUNNING   (deadline renewed)
 *     RUNNING  --result of this attempt-->         SAVING    --saved--> gone, counted, told to the searcher
 *     RUNNING  --its worker is back without it-->  RUNNING   (lease sent again, the same attempt)
 *     RUNNING  --deadline, hand-back, worker restarted--> LOSING --saved--> WAITING
 *     (LEASING, SAVING, LOSING fall back where the store cannot save, and are tried again)
 * A trial that has failed for a reason of its surroundings may be tried again when somebody asks: it returns from the store as
 * WAITING, for its next attempt. The searcher was told that it failed and is told nothing else, so that the proposals made
 * since stay what replay makes of the record; its new result counts everywhere else.
 * Thread: the loop's. */
#ifndef DIDACT_COORDINATOR_SCHED_H
#define DIDACT_COORDINATOR_SCHED_H

#include "common/err.h"
#include "common/job.h"
#include "common/wire.h"
#include "coordinator/audit.h"
#include "coordinator/list.h"
#include "common/search/search.h"
#include "coordinator/store/store.h"
#include "worker/engine/demand.h"

#define LEASE_MAX_DEATHS 3    /* workers that one trial may take with it before it is recorded as failed(crash) */
#define MISSED_BEATS     3    /* silence of so many heartbeats ends a session */
#define FIT_AT_ONCE      64   /* waiting trials whose memory is found out in one dispatch: a plan takes about a millisecond */
#define MAX_IDLE_WORKERS 4096 /* offline workers that are remembered, for people */

enum phase { PHASE_WAITING, PHASE_LEASING, PHASE_RUNNING, PHASE_SAVING, PHASE_LOSING };

struct worker {
    struct link all;                /* sched.workers */
    struct link hungry;             /* sched.hungry while online with credit */
    struct link leases;             /* head: trial.of_worker */
    name_str    id, name, engine_version, device_class, isa, host;
    uint32_t    slots, credit;
    enum device_class device;       /* what it can train on beside its CPU; CPU: nothing */
    name_str    device_name;
    uint64_t    mem_bytes, device_bytes, pid, done, failed;
    bool        online;
    int64_t     last_seen_ms;
    int         n_leases;
    void       *peer;               /* the transport's; NULL while offline */
};

/* What the headers of a job's files say, and its trials' memory depends on. */
struct job_data {
    struct image_shape img;
    int                T, B;        /* of the curriculum: steps, images of each (search) */
    struct inner_cfg   inner;
    int                control_B;   /* of the audit's control curriculum, where it has one */
    struct inner_cfg   control_inner;
    uint64_t           n_train, n_valid;
};

struct trial {
    struct job          *job;
    enum phase           phase;
    struct trial_row     row;       /* what the store holds, or will once the operation under way is saved */
    struct worker       *worker;    /* NULL: waiting, or not heard of since a restart */
    int64_t              deadline_ms;
    bool                 look, repeat; /* of an outside searcher: the score book is asked first; a trial of its network was there before */
    bool                 need_known;
    uint64_t             need_bytes;  /* memory that it takes; 0: not known */
    uint64_t             refused_by;  /* the largest worker's memory: no worker has room for it; 0: not so */
    bool                 undelivered; /* RUNNING: its worker has not got the lease; sent again when it asks for work */
    bool                 has_progress;
    struct task_progress progress;
    int64_t              progress_ms;
    double               point_at;  /* teach: meta-step of the last row of history */
    struct link          wait;      /* job.waiting, by index */
    struct link          running;   /* sched.running, by deadline */
    struct link          of_worker;
};

struct job {
    struct link        all;         /* sched.jobs, by id */
    struct job_row     row;         /* counts kept up to date; spec_json owned */
    struct job_spec    spec;
    struct image_shape img;
    struct job_data    data;
    bool               have_data;
    struct search     *search;      /* search jobs */
    struct audit      *audit;       /* of those that ask for one, else NULL */
    struct trial     **audit_slot;  /* open audit trials: training of item i at 2 i, its control at 2 i + 1 */
    int                n_audits;    /* items whose trials were made */
    struct trial     **warm_slot;   /* open trials of the warm-up that workers vote on: candidate i at i */
    int                n_warm, warm_next; /* its candidates, 0: none; those below were looked at */
    uint64_t           warm_open, warm_done;
    struct trial     **slot;        /* open trials: trial i at i % n_slots */
    uint64_t           n_slots;
    struct again { uint64_t idx; struct trial *t; } *again; /* open trials that the window left behind: tried again; by idx, t NULL once ended */
    size_t             n_again, cap_again;
    struct link        asks;        /* requests of an outside searcher that wait for the one being saved (ask.c) */
    int                n_asks;
    bool               asking;      /* one is being saved */
    struct link        waiting;
    uint64_t           n_open, n_waiting, n_running; /* running: leasing, running, saving, losing */
    uint64_t           total;       /* trials when all are there: budget, or the list's length */
    uint64_t           served;      /* round-robin stamp */
    bool               have_best;
    struct trial_row   best;        /* the best so far: its index, score, architecture */
    bool               book_likely; /* when it was loaded the score book had rows of its dataset, curriculum and fidelity */
    bool               no_more;     /* nothing more is proposed: `fail_text` says why */
    char               fail_text[256];
    bool               ending, state_dirty, changing; /* an end, or a state, is being saved or waits to be */
    enum job_state     end_state;
    double             decayed;     /* finished trials, decaying with RATE_TAU_S: the rate people see */
    int64_t            decayed_ms, since_ms;
};

/* Totals since the start, for /metrics. */
struct sched_counters { uint64_t from_book, leases, expired, deaths, recorded, duplicate, stale, refused, proposals; };

struct sched_cfg {
    struct store  *store;     /* borrowed */
    struct reader *reader;    /* borrowed */
    uint32_t heartbeat_ms, lease_ms;
    int64_t (*now_ms)(void *arg);
    /* Send this task to this worker; it may vanish on the way: the deadline sees to that. */
    void (*send_lease)(void *arg, struct worker *w, const struct task *t);
    /* Shape of a dataset's images, by hash. */
    int (*image_shape)(void *arg, const char *hash, struct image_shape *out, struct errbuf *e);
    /* After it space_find knows the imported spaces that the job names. NULL: it has none. */
    int (*spaces)(void *arg, const struct job_spec *spec, struct errbuf *e);
    /* What the files of a search or verify job say. NULL: trials go to any worker, whatever they take. */
    int (*job_data)(void *arg, const struct job_spec *spec, struct job_data *out, struct errbuf *e);
    void *arg;
};

#define RATE_RING 60
struct sched {
    struct sched_cfg cfg;
    struct link      jobs, workers, hungry, running;
    uint64_t         next_job, served;
    int              n_jobs, n_workers;
    bool             store_down;  /* the last write failed; nothing is given out until a probe succeeds */
    int              n_sized;     /* of FIT_AT_ONCE */
    bool             probing, dispatching, stopped;
    int64_t          probe_ms, opened_ms;
    struct sched_counters count;
    uint32_t         per_second[RATE_RING];
    int64_t          second;      /* of the newest place in per_second */
    double           macs_per_slot_s[DEVICE_CLASS_COUNT]; /* measured throughput of scoring, moving average (cost.h); 0: nothing measured yet */
};

/* Loads every job that has not ended; their running trials keep attempt and worker and get a fresh deadline. */
int  sched_open(struct sched **out, const struct sched_cfg *cfg, struct errbuf *e);
void sched_close(struct sched *s); /* flush the store before: completions speak to this */
void sched_tick(struct sched *s);  /* several times a second: deadlines, budgets of time, silent workers, retries */
/* Before the next tick: for `ms` of the clock nobody could be heard (the process was stopped, the machine slept, the clock
 * was set; negative: set back). That time counts against no lease and no worker. */
void sched_slept(struct sched *s, int64_t ms);
void sched_dispatch(struct sched *s);
void sched_stop(struct sched *s);  /* nothing more is given out */

/* ---- workers. `drop` has room for every lease that the message lists ---- */
struct worker *sched_hello(struct sched *s, const struct wire_msg *m, struct lease_ref *drop, int *n_drop);
void sched_heartbeat(struct sched *s, struct worker *w, const struct wire_msg *m, struct lease_ref *drop, int *n_drop);
void sched_want(struct sched *s, struct worker *w, uint32_t n);
void sched_hand_back(struct sched *s, struct worker *w, struct lease_ref ref, bool broke); /* broke: counts as a death */
void sched_offline(struct sched *s, struct worker *w, const char *why); /* its leases live on until their deadline */

typedef void (*sched_acked)(void *arg, struct lease_ref ref, int rc, enum ack_outcome outcome, const struct errbuf *e);
/* `acked` is called once, after the commit or at once on a refusal. */
void sched_result(struct sched *s, struct worker *w, struct lease_ref ref, const struct trial_result *r, sched_acked acked,
                  void *arg);

/* ---- jobs ---- */
typedef void (*sched_done)(void *arg, int rc, uint64_t job, const struct errbuf *e);
/* trials: malloc'ed list of a verify or teach job (taken), or NULL. */
void sched_submit(struct sched *s, const struct job_spec *spec, struct trial_row *trials, size_t n, sched_done done, void *arg);
void sched_action(struct sched *s, uint64_t job, const char *action, sched_done done, void *arg);
/* ask.c: proposals of an outside searcher. */
#define ASK_MAX_BATCH 256
#define ASK_MAX_QUEUE 64   /* requests of one job that wait */
struct asked { const char *arch, *tag; };
/* The rows as saved, valid during the call. before: a request of this key has proposed them earlier. */
typedef void (*sched_asked)(void *arg, int rc, const struct trial_row *row, size_t n, bool before, const struct errbuf *e);
/* All n or none. request: a key under which it may be repeated safely; "": none. `done` is called once, after the commit or at once on a
 * refusal. -ERR_BUSY: the window has no room now. */
void sched_propose(struct sched *s, uint64_t job, const char *request, const struct asked *v, size_t n, sched_asked done, void *arg);
/* change.c: "set", "extend", "retry", "finish". text: "key=value" lines of the first two. Ended jobs too; what they ask of a job is checked first. */
bool sched_is_change(const char *action);
void sched_change(struct sched *s, uint64_t job, const char *action, const char *text, sched_done done, void *arg);
struct job *sched_job(const struct sched *s, uint64_t id); /* NULL: ended, or never was */
struct trial *job_trial(const struct job *j, uint64_t idx);
double job_rate(const struct sched *s, const struct job *j); /* trials a second */
double sched_rate(const struct sched *s);

/* ---- between sched.c, job.c, lease.c and worker.c ---- */
int64_t sched_now(const struct sched *s);
void sched_put(struct sched *s, struct store_op *op);
bool sched_saved(struct sched *s, struct store_op *op); /* notes the store's health; true when op succeeded */
struct job *job_new(struct sched *s, struct job_row *row, const struct job_spec *spec, struct errbuf *e); /* takes row's text */
void job_free(struct sched *s, struct job *j);
int  job_load(struct sched *s, struct job *j, struct errbuf *e);
struct search_result job_told(const struct trial_row *row); /* what a searcher is told of an ended trial; borrows from row */
/* A trial of a search is over: its searcher and its audit are told. live: not while loading. */
int  job_tell(struct sched *s, struct job *j, const struct trial_row *row, bool live, struct errbuf *e);
/* job_warmup.c: before any candidate is loaded or proposed. */
int  job_warmup_load(struct sched *s, struct job *j, struct errbuf *e);
void job_warmup_tell(struct sched *s, struct job *j, const struct trial_row *row); /* one of it has ended */
/* Of a recorded one, for whoever runs the search again: n is what search_warmup said. -ERR_CORRUPT where it would not have been made. */
int  warmup_recorded(struct search *search, int n, const struct trial_row *row, struct errbuf *e);
int  job_audit_open(struct sched *s, struct job *j); /* the trials of what was chosen. -ERR_NOMEM: the next result tries again */
void job_audit_tell(struct sched *s, struct job *j, const struct trial_row *row, bool live);
struct trial **job_slot(const struct job *j, uint64_t idx); /* where trial idx is while it is open, if not tried again; NULL: nowhere */
struct trial *job_add_trial(struct job *j, const struct trial_row *row); /* NULL: no memory */
void job_drop_trial(struct job *j, struct trial *t); /* it has ended */
char *job_spec_text(const struct job_spec *spec);    /* as stored; malloc'ed, NULL: no memory */
int  job_spec_from(const char *text, struct job_spec *out, struct errbuf *e);
double job_seconds(const struct sched *s, const struct job_row *r); /* that it has lived */
void job_wait(struct job *j, struct trial *t);
/* The first waiting trial that fits w, or else a new one, which may not; NULL: none now. */
struct trial *job_take(struct sched *s, struct job *j, const struct worker *w);
uint64_t job_last_total(const struct job *j); /* proposals that it will have made in the end */
bool job_gives(const struct job *j); /* it is in a state to give out trials */
void job_started(struct sched *s, struct job *j); /* something has been given out, or proposed */
void ask_drop_all(struct job *j);    /* it ends: what waits is refused */
void ask_look(struct trial *t, bool had); /* it is about to wait; had: its network was proposed before */
void ask_serve(struct sched *s, struct job *j); /* waiting trials that the score book answers */
bool job_has_work(struct sched *s, const struct job *j, const struct worker *w); /* w NULL: for anyone */
void job_count(struct sched *s, struct job *j, const struct trial_row *row, bool live);
void job_maybe_end(struct sched *s, struct job *j);
void job_end(struct sched *s, struct job *j, enum job_state state, const char *reason, sched_done done, void *arg);
void job_save_state(struct sched *s, struct job *j);
void job_tick(struct sched *s, struct job *j);
void trial_free(struct trial *t);
/* race.c. What a trial is scored with; of a racing round that reads the trial it goes on from. */
int  race_fidelity(struct sched *s, const struct job_spec *spec, const struct trial_row *t, struct fidelity *out, struct errbuf *e);
uint32_t race_zero_cost(const struct job_spec *spec, const struct trial_row *t); /* the set that is computed beside it; a round has its parent's */
int  race_latency_batch(const struct job_spec *spec, const struct trial_row *t); /* so, too, what is measured */
/* Of a racing round: *r, what was computed, becomes the score over all initialisations so far. -ERR_INPUT where it is not what was asked for. */
int  race_result(struct sched *s, const struct job_spec *spec, const struct trial_row *t, struct trial_result *r, struct errbuf *e);
void job_serve_book(struct sched *s, struct job *j); /* proposals that the score book answers, as far as it does: they need no worker */
struct book_row *book_entry(struct sched *s, const struct trial *t, const struct trial_result *r); /* malloc'ed; NULL: not for the book */
bool book_may_have(struct sched *s, const struct job *j);
bool book_serve(struct sched *s, struct trial *t);   /* true: the book has it, and it is being recorded */
void lease_finish(struct sched *s, struct trial *t, const struct trial_row *row); /* the store has it: count, tell the searcher, forget */
void lease_grant(struct sched *s, struct trial *t, struct worker *w);
void lease_refuse(struct sched *s, struct trial *t, uint64_t largest); /* no worker has room: failed(oom) */
void lease_resume(struct sched *s, struct trial *t); /* after a restart */
bool lease_renew(struct sched *s, struct worker *w, struct lease_ref ref); /* false: not its lease any more */
void lease_lose(struct sched *s, struct trial *t, bool death);
void lease_undelivered(struct trial *t, struct worker *w);
bool lease_deliver_again(struct sched *s, struct trial *t); /* false: it was delivered */
void lease_expire_due(struct sched *s);
void lease_progress(struct sched *s, struct worker *w, const struct task_progress *p);
void worker_tick(struct sched *s);
/* Memory and operations of a trial of this architecture, rung and group; all 0 for a teach job. */
int  fit_demand(const struct job_spec *spec, const struct job_data *data, const char *arch, int rung, enum trial_group group, struct demand *out,
                struct errbuf *e);
/* Where w would train t's learners: its CPU or its device. */
enum device_class fit_device(const struct trial *t, const struct worker *w);
bool fit_spec(const struct job_spec *s, const struct worker *w); /* w has the device that the job's scores, or its teacher, are computed on */
bool fit_has_device(const struct trial *t, const struct worker *w); /* one that t may be given to, whatever its memory */
bool fit_worker(struct trial *t, const struct worker *w);
bool fit_nobody(struct sched *s, struct trial *t, uint64_t *largest); /* of the workers that are here; the largest's memory */
void fit_sweep(struct sched *s);

#endif
