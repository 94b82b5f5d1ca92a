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
 * Thread: the loop's. */
#ifndef DIDACT_COORDINATOR_SCHED_H
#define DIDACT_COORDINATOR_SCHED_H

#include "common/err.h"
#include "common/job.h"
#include "common/wire.h"
#include "coordinator/audit.h"
#include "coordinator/list.h"
#include "coordinator/search/search.h"
#include "coordinator/store/store.h"

#define LEASE_MAX_DEATHS 3    /* workers that one trial may take with it before it is recorded as failed(crash) */
#define MISSED_BEATS     3    /* silence of so many heartbeats ends a session */
#define MAX_IDLE_WORKERS 4096 /* offline workers that are remembered, for people */

enum phase { PHASE_WAITING, PHASE_LEASING, PHASE_RUNNING, PHASE_SAVING, PHASE_LOSING };

struct worker {
    struct link all;                /* sched.workers */
    struct link hungry;             /* sched.hungry while online with credit */
    struct link leases;             /* head: trial.of_worker */
    name_str    id, name, engine_version, device_class, isa, host;
    uint32_t    slots, credit;
    uint64_t    mem_bytes, pid, done, failed;
    bool        online;
    int64_t     last_seen_ms;
    int         n_leases;
    void       *peer;               /* the transport's; NULL while offline */
};

struct trial {
    struct job          *job;
    enum phase           phase;
    struct trial_row     row;       /* what the store holds, or will once the operation under way is saved */
    struct worker       *worker;    /* NULL: waiting, or not heard of since a restart */
    int64_t              deadline_ms;
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
    struct search     *search;      /* search jobs */
    struct audit      *audit;       /* of those that ask for one, else NULL */
    struct trial     **audit_slot;  /* open audit trials: training of item i at 2 i, its control at 2 i + 1 */
    int                n_audits;    /* items whose trials were made */
    struct trial     **slot;        /* open trials: trial i at i % n_slots */
    uint64_t           n_slots;
    struct link        waiting;
    uint64_t           n_open, n_waiting, n_running; /* running: leasing, running, saving, losing */
    uint64_t           total;       /* trials when all are there: budget, or the list's length */
    uint64_t           served;      /* round-robin stamp */
    bool               have_best;
    struct trial_row   best;        /* the best so far: its index, score, architecture */
    bool               no_more;     /* nothing more is proposed: `fail_text` says why */
    char               fail_text[256];
    bool               ending, state_dirty, changing; /* an end, or a state, is being saved or waits to be */
    enum job_state     end_state;
    double             decayed;     /* finished trials, decaying with RATE_TAU_S: the rate people see */
    int64_t            decayed_ms, since_ms;
};

/* Totals since the start, for /metrics. */
struct sched_counters { uint64_t leases, expired, deaths, recorded, duplicate, stale, refused, proposals; };

struct sched_cfg {
    struct store  *store;     /* borrowed */
    struct reader *reader;    /* borrowed */
    uint32_t heartbeat_ms, lease_ms;
    int64_t (*now_ms)(void *arg);
    /* Send this task to this worker; it may vanish on the way: the deadline sees to that. */
    void (*send_lease)(void *arg, struct worker *w, const struct task *t);
    /* Shape of a dataset's images, by hash. */
    int (*image_shape)(void *arg, const char *hash, struct image_shape *out, struct errbuf *e);
    void *arg;
};

#define RATE_RING 60
struct sched {
    struct sched_cfg cfg;
    struct link      jobs, workers, hungry, running;
    uint64_t         next_job, served;
    int              n_jobs, n_workers;
    bool             store_down;  /* the last write failed; nothing is given out until a probe succeeds */
    bool             probing, dispatching, stopped;
    int64_t          probe_ms;
    struct sched_counters count;
    uint32_t         per_second[RATE_RING];
    int64_t          second;      /* of the newest place in per_second */
    double           macs_per_slot_s; /* measured throughput of scoring, moving average; 0: nothing measured yet */
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
void sched_hand_back(struct sched *s, struct worker *w, struct lease_ref ref);
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
struct trial **job_slot(const struct job *j, uint64_t idx); /* where trial idx is while it is open; NULL: nowhere */
void job_forget_trial(struct job *j, struct trial *t); /* frees t */
/* A trial of a search is over: its searcher and its audit are told. live: not while loading. */
int  job_tell(struct sched *s, struct job *j, const struct trial_row *row, bool live, struct errbuf *e);
struct trial *job_add_trial(struct job *j, const struct trial_row *row);
void job_wait(struct job *j, struct trial *t);
struct trial *job_take(struct sched *s, struct job *j); /* the next trial to give out; NULL: none now */
bool job_has_work(const struct sched *s, const struct job *j);
void job_count(struct sched *s, struct job *j, const struct trial_row *row, bool live);
void job_maybe_end(struct sched *s, struct job *j);
void job_end(struct sched *s, struct job *j, enum job_state state, const char *reason, sched_done done, void *arg);
void job_save_state(struct sched *s, struct job *j);
void job_tick(struct sched *s, struct job *j);
void trial_free(struct trial *t);
void lease_grant(struct sched *s, struct trial *t, struct worker *w);
void lease_resume(struct sched *s, struct trial *t); /* after a restart */
bool lease_renew(struct sched *s, struct worker *w, struct lease_ref ref); /* false: not its lease any more */
void lease_lose(struct sched *s, struct trial *t, bool death);
void lease_undelivered(struct trial *t, struct worker *w);
bool lease_deliver_again(struct sched *s, struct trial *t); /* false: it was delivered */
void lease_expire_due(struct sched *s);
void lease_progress(struct sched *s, struct worker *w, const struct task_progress *p);
void worker_tick(struct sched *s);

#endif
