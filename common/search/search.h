/* search.h - the algorithms that propose trials, and the rule that makes their history repeatable. The coordinator runs them on
 * results of workers, `didact simulate` on recorded ones (simulate.h): the same code.
 *
 * Replay. A searcher is a pure function of (job seed, results in proposal order). Proposal i sees the results of trials
 * 0 … i - W and nothing else, W the job's window: so it can be made once these have ended, and then comes out the same
 * with one worker or a thousand, whatever crashed in between. struct search holds back results that arrived early.
 * No searcher looks at the budget (spec.trials, seconds): a job that is extended goes on with the history of the larger one.
 * Constraints and repeats. A draw that breaks the job's constraints is drawn again from the same stream; so is one that this
 * job has proposed before, a bounded number of times (both depend only on the seed and on earlier proposals).
 * Cost. O(log n) at most for each proposal and each result; memory is a ring of W results, the searcher's own state, and 16
 * bytes a proposal to recognise repeats.
 * Thread: none of its own, no lock; not shared. */
#ifndef DIDACT_SEARCH_SEARCH_H
#define DIDACT_SEARCH_SEARCH_H

#include "common/err.h"
#include "common/job.h"
#include "common/space.h"

#include <stdint.h>

#define SEARCH_MAX_DRAWS   10000 /* draws for one proposal before the constraints are called impossible */
#define SEARCH_MAX_REPEATS 200   /* of them, draws that may be given up only because this job has had them */

/* What is known of a finished trial. A searcher is told of each of rung 0 exactly once, in index order: its scores are comparable. */
struct search_result {
    uint64_t idx;
    double   score; /* -INFINITY for a trial that failed */
    int      rung;
    uint64_t params, macs; /* as recorded; 0 may stand for a failed one */
    const char *arch;
    int      n_inits;      /* of the score, and its standard error over them; 0: not known */
    double   score_se;
    double latency_ms; /* as measured; 0: it was not */
};

struct search;
/* An architecture to start from: the best of the warm-up that this job has not proposed yet (warmup.h); without one, or after it,
 * uniform. What searchers call where they want chance. */
void search_start(struct search *s, struct rng *rng, char *text);

struct searcher {
    const char *name;
    int  (*check)(const struct searcher_cfg *cfg, struct errbuf *e);
    void *(*open)(const struct job_spec *spec, const struct space *space, struct search *s); /* all three outlive the state */
    void (*close)(void *st);
    void (*observe)(void *st, const struct search_result *r);
    /* One draw for proposal i: canonical text, and the index of its parent or -1. NULL: proposals come from outside (search_offer). */
    void (*draw)(void *st, struct rng *rng, uint64_t i, char *text, int64_t *parent);
    /* A draw was taken, now or in an earlier life: whatever draws change beyond one proposal changes here. May be NULL. */
    void (*proposed)(void *st, uint64_t i, int64_t parent);
};
const struct searcher *searcher_find(const char *name); /* NULL: none */
const struct searcher *searcher_at(int i);              /* the table; NULL past its end */
extern const struct searcher searcher_random, searcher_evolution, searcher_local, searcher_nsga2, searcher_external;

struct proposal {
    uint64_t idx, seed, params, macs;
    int64_t  parent;  /* a promotion (rung > 0): the trial it goes on from */
    int      rung;    /* of successive halving or racing (rungs.h); job_fidelity says what it means */
    char     arch[ARCH_TEXT_MAX], hash[ARCH_HASH_LEN + 1];
};

struct image_shape { int c, h, w, n_classes; };

/* Who says what may be proposed, and what it costs. */
struct search_world {
    /* 1: it may be, *params and *macs are set. Anything else: it may not, and is drawn again. A pure function of `arch`. */
    int (*admits)(void *arg, const char *arch, uint64_t *params, uint64_t *macs);
    /* Instead of the score that `warmup.score` names. NULL: that one. */
    double (*cheap)(void *arg, const char *arch);
    void *arg; /* borrowed; outlives the search */
};

/* What can be built on these images and holds the job's constraints may be proposed. */
int  search_open(struct search **out, const struct job_spec *spec, const struct image_shape *img, struct errbuf *e);
int  search_open_in(struct search **out, const struct job_spec *spec, const struct search_world *world, struct errbuf *e);
void search_close(struct search *s); /* NULL is fine */

uint64_t search_next_index(const struct search *s);
bool     search_ready(const struct search *s); /* all results that the next proposal may see are in, and the warm-up's */
/* Where the vote of a warm-up needs tensors: draws its candidates and says how many there are; nothing is ready until each is told. 0 where
 * there is nothing to wait for. */
int  search_warmup(struct search *s, struct errbuf *e);
struct warmup_candidate { const char *arch, *hash; uint64_t seed, params, macs; bool told; };
struct warmup_candidate search_warmup_at(const struct search *s, int i); /* in the order of their draws, until all are told */
int  search_warmup_tell(struct search *s, int i, const struct zero_cost_scores *z, struct errbuf *e); /* NULL: it failed */
/* The next proposal. -ERR_STATE when not ready; -ERR_INPUT "constraints leave nothing to propose". */
int  search_propose(struct search *s, struct proposal *out, struct errbuf *e);
/* Instead of search_propose: the proposal was made before, in an earlier life. Reads idx, hash, parent, rung. */
int  search_recall(struct search *s, const struct proposal *p, struct errbuf *e);
/* A proposed trial has ended. Any order. A score that is not finite is a failure. */
int  search_finish(struct search *s, const struct search_result *r, struct errbuf *e);

/* ---- proposals from outside ---- */
bool search_is_external(const struct search *s); /* then search_propose is -ERR_STATE, and search_recall takes up what search_offer made */
/* What `text` is as proposal `idx` (next or later): canonical, with its hash, seed and costs. -ERR_INPUT names the part of the text, or the
 * constraint, that is wrong. Changes nothing. */
int  search_offer(const struct search *s, uint64_t idx, const char *text, struct proposal *out, struct errbuf *e);
bool search_ready_for(const struct search *s, uint64_t idx); /* all results that proposal idx >= next may see are in */
bool search_had(const struct search *s, const char *hash);   /* proposed before, on rung 0 */
/* Of trials 0, 1, 2, … so many have ended, without a gap. */
uint64_t search_told(const struct search *s);

bool search_within(const struct constraints *c, uint64_t params, uint64_t macs);
/* Does `text`, built at this proxy, hold the constraints? 1, 0, or an error (it cannot be built on these images). params, macs may be NULL. */
int  search_fits(const struct space *sp, const char *text, const struct image_shape *img, const struct proxy *proxy,
                 const struct constraints *c, uint64_t *params, uint64_t *macs, struct errbuf *e);

#endif
