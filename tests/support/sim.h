/* sim.h - a coordinator's scheduler without the coordinator: a virtual clock, a real store in a folder of its own, and
 * workers that are structs. Time passes only in sim_advance (or where a test moves `now`); leases go into `sent` instead of to a
 * worker. A call that writes returns when that is saved, or when the store has failed to (`fault`), so a test reads on without
 * waiting. Everything asserts instead of failing.
 * One simulator a test, between sim_setup and sim_teardown; the workers are the scheduler's and end with sim_end. */
#ifndef DIDACT_TESTS_SIM_H
#define DIDACT_TESTS_SIM_H

#include "coordinator/sched.h"
#include "tests/support/tmp.h"

#define LEASE_MS 1000 /* of sim_setup */
#define BEAT_MS  200

struct sim_rules {
    uint32_t beat_ms, lease_ms;
    bool     any_size;       /* nothing is known of a trial's memory: it goes to any worker */
};

struct sent { char worker[64]; struct task t; };

struct sim {
    struct tmp      *tmp;    /* owned, as all that follows */
    struct store    *store;
    struct reader   *reader;
    struct sched    *sched;
    struct sim_rules rules;
    int64_t          now;    /* ms */
    int              fault;  /* an enum err that every write meets; 0: none */
    struct sent     *sent;   /* every lease that left, over restarts too */
    int              n_sent;
};

int  sim_setup(void **state); /* cmocka fixtures: *state is a struct sim, started, with beats of BEAT_MS and leases of LEASE_MS */
int  sim_setup_as(void **state, struct sim_rules rules);
int  sim_teardown(void **state);
/* The coordinator alone: it ends after what it was saving, and starts from what is saved. Its workers must say hello again. */
void sim_end(struct sim *s);
void sim_start(struct sim *s);
void sim_restart(struct sim *s);
/* The clock goes on so far, and ticks once. */
void sim_advance(struct sim *s, int64_t ms);

/* ---- people ---- */
struct answer { int rc; uint64_t job; char text[400]; }; /* rc 1: none yet; text: of an error */
void sim_on_done(void *arg, int rc, uint64_t job, const struct errbuf *e); /* arg: a struct answer */
struct job_spec sim_search_spec(int trials, int window); /* a small evolution of chains */
uint64_t        sim_submit(struct sim *s, const struct job_spec *spec);
struct answer   sim_act(struct sim *s, uint64_t job, const char *action);
struct job_row  sim_job_row(struct sim *s, uint64_t job); /* as saved, without its spec_json */
struct trial_row *sim_trial(struct sim *s, uint64_t job, uint64_t idx); /* as saved; valid until the next call */
/* Trials of a job, each as `line` prints it (like snprintf), in *text (malloc'ed; NULL: none). Their number. */
typedef int sim_line(char *out, size_t size, const struct trial_row *t);
int sim_rows(struct sim *s, uint64_t job, enum trial_sort sort, sim_line *line, char **text);
/* What any job's files say here, unless any_size. */
void sim_job_data(struct job_data *out);

/* ---- workers ---- */
struct ack { int rc; enum ack_outcome outcome; };
/* A worker (back) online, with 4 slots, that holds n <= 16 leases; how many of them it shall drop in *n_drop (NULL: not asked). */
struct worker *sim_hello(struct sim *s, const char *id, uint64_t pid, struct lease_ref *holding, int n, int *n_drop);
void       sim_want(struct sim *s, struct worker *w, uint32_t n);
int        sim_beat(struct sim *s, struct worker *w, struct lease_ref *holding, int n); /* how many of them it shall drop */
struct lease_ref sim_ref_of(const struct task *t);
struct lease_ref sim_last(const struct sim *s); /* the last lease that left */
struct ack sim_report(struct sim *s, struct worker *w, struct lease_ref ref, struct trial_result r);
struct ack sim_scored(struct sim *s, struct worker *w, struct lease_ref ref, double score);
struct ack sim_failed(struct sim *s, struct worker *w, struct lease_ref ref, enum fail_reason why);
double     sim_score_of(const char *arch); /* in [0, 1), a function of the architecture alone */

#endif
