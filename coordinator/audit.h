/* audit.h - the standing audit of a search: which of its candidates are trained for real while it runs, what that says of the scores,
 * and what follows from it.
 *
 * Choice. The candidates 0, 1, 2, … are cut into blocks of `every`; in each block a place is drawn, a function of (job seed, block) alone.
 * The first candidate from there to the block's end that has a score and whose network was not chosen before is audited. So the choice
 * is a random sample, spread over the whole search, and a pure function of (seed, results in proposal order).
 * Share. A budget in device-seconds would make the choice depend on clocks. Multiply-adds are known exactly beforehand, and training costs
 * a network the same multiple of its scoring whatever it is: so a share of them is simply one candidate in so many (audit_plan).
 * Verdict. After each training, in the order of candidates, Spearman's correlation over all so far; it is `low` while at least
 * `min` networks count and the interval's upper end is below the floor. With action stop, proposal i is made only when the
 * trainings of candidates up to i - lag have ended, and a low verdict after candidate k ends the search at proposal k + lag: again a pure
 * function of results in order, however many workers there are. Nothing else of an audit touches the search.
 * Thread: none of its own. Memory: `max` items, and one result for each candidate that ended before an earlier one. */
#ifndef DIDACT_COORDINATOR_AUDIT_H
#define DIDACT_COORDINATOR_AUDIT_H

#include "common/job.h"
#include "common/stats.h"
#include "coordinator/store/store.h"

struct audit_item {
    uint64_t idx, seed, params, macs; /* of the candidate */
    char     arch[ARCH_TEXT_MAX], hash[ARCH_HASH_LEN + 1];
    double   score, real, control;    /* NaN: not yet, or failed */
    bool     trained, controlled;     /* these trials have ended, whichever way */
};

enum audit_state { AUDIT_FEW, AUDIT_FINE, AUDIT_LOW, AUDIT_STATE_COUNT };
const char *audit_state_name(enum audit_state s); /* "few" "fine" "low" */

struct audit_summary {
    int      chosen, trained, failed, n; /* n: networks with score and real accuracy */
    struct estimate score, params, control;
    int      n_control;
    enum audit_state state;
};

struct audit;
/* *out is NULL for a job without an audit. */
int  audit_open(struct audit **out, const struct job_spec *spec, struct errbuf *e);
void audit_close(struct audit *a); /* NULL is fine */

/* A candidate has ended (row.state, row.r). Any order within the job's window, each once. Returns 0 or -ERR_NOMEM. */
int  audit_saw(struct audit *a, const struct trial_row *row);
int  audit_n(const struct audit *a);                   /* items chosen so far */
const struct audit_item *audit_at(const struct audit *a, int i);
int  audit_find(const struct audit *a, uint64_t trial); /* the item that a TRIAL_AUDIT + i or TRIAL_CONTROL + i belongs to; -1: none */
/* The trial that trains item i, or scores it on the control. */
void audit_row(const struct audit *a, int i, bool control, struct trial_row *out);
/* Such a trial has ended. Any order. True when the verdict changed to or from low. -ERR_NOMEM leaves the old verdict. */
bool audit_ended(struct audit *a, const struct trial_row *row);

bool audit_lets(const struct audit *a, uint64_t next); /* proposal `next` need not wait for a training */
uint64_t audit_stop_at(const struct audit *a);         /* so many proposals are made; UINT64_MAX: no end */
void audit_stop_text(const struct audit *a, char *out, size_t cap); /* why; where it has an end */
bool audit_stopped(const struct job_row *row);         /* that is how this job ended */
bool audit_complete(const struct audit *a);            /* every trial of every item has ended */
/* Seconds of one device that what is left of it takes, by the mean of what has ended, of a job with `total` candidates: what was chosen, and
 * one in each block still to come. NaN while something is left and nothing has ended. */
double audit_seconds_left(const struct audit *a, uint64_t total);
enum audit_state audit_verdict(const struct audit *a, struct estimate *rho, int *n); /* the last, in order */
/* Over all that has ended, in whatever order; computed anew only when more is known. Returns 0 or -ERR_NOMEM. */
int  audit_summarise(struct audit *a, struct audit_summary *out);
/* The same from stored trials (SORT_AUDIT), for a job that has ended. */
int  audit_from_rows(struct audit **out, const struct job_spec *spec, struct reader *r, uint64_t job, struct errbuf *e);

/* Fills in every and lag. train_cost, control_cost: of an audited network, in scorings of it. */
void audit_plan(struct audit_cfg *a, int trials, int window, double train_cost, double control_cost);

#endif
