/* search.h - the algorithms that propose trials, and the rule that makes their history repeatable.
 *
 * Replay. A searcher is a pure function of (job seed, results in proposal order). Proposal i sees the results of trials
 * 0 … i - W and nothing else, W the job's window: so it can be made once these have ended, and then comes out the same
 * with one worker or a thousand, whatever crashed in between. struct search holds back results that arrived early.
 * Constraints and repeats. A draw that breaks the job's constraints is drawn again from the same stream; so is one that this
 * job has proposed before, a bounded number of times (both depend only on the seed and on earlier proposals).
 * Cost. O(log n) at most for each proposal and each result; memory is a ring of W results, the searcher's own state, and 16
 * bytes a proposal to recognise repeats.
 * Thread: none of its own, no lock; not shared. */
#ifndef DIDACT_COORDINATOR_SEARCH_H
#define DIDACT_COORDINATOR_SEARCH_H

#include "common/err.h"
#include "common/job.h"
#include "common/space.h"

#include <stdint.h>

#define SEARCH_MAX_DRAWS   10000 /* draws for one proposal before the constraints are called impossible */
#define SEARCH_MAX_REPEATS 200   /* of them, draws that may be given up only because this job has had them */

/* What a searcher is told of one finished trial, in index order, each exactly once. */
struct search_result {
    uint64_t idx;
    double   score; /* -INFINITY for a trial that failed */
    const char *arch;
};

struct searcher {
    const char *name;
    int  (*check)(const struct searcher_cfg *cfg, struct errbuf *e);
    void *(*open)(const struct job_spec *spec, const struct space *space);
    void (*close)(void *st);
    void (*observe)(void *st, const struct search_result *r);
    /* One draw for proposal i: canonical text, and the index of its parent or -1. */
    void (*draw)(void *st, struct rng *rng, uint64_t i, char *text, int64_t *parent);
};
const struct searcher *searcher_find(const char *name); /* NULL: none */
const struct searcher *searcher_at(int i);              /* the table; NULL past its end */
extern const struct searcher searcher_random, searcher_evolution;

struct proposal {
    uint64_t idx, seed, params, macs;
    int64_t  parent;
    char     arch[ARCH_TEXT_MAX], hash[ARCH_HASH_LEN + 1];
};

struct image_shape { int c, h, w, n_classes; };

struct search;
int  search_open(struct search **out, const struct job_spec *spec, const struct image_shape *img, struct errbuf *e);
void search_close(struct search *s); /* NULL is fine */

uint64_t search_next_index(const struct search *s);
bool     search_ready(const struct search *s); /* all results that the next proposal may see are in */
/* The next proposal. -ERR_STATE when not ready; -ERR_INPUT "constraints leave nothing to propose". */
int  search_propose(struct search *s, struct proposal *out, struct errbuf *e);
/* Instead of search_propose: the proposal was made before, in an earlier life. */
int  search_recall(struct search *s, uint64_t idx, const char *arch, const char *hash, struct errbuf *e);
/* A proposed trial has ended. Any order. */
int  search_finish(struct search *s, uint64_t idx, bool scored, double score, const char *arch, struct errbuf *e);

/* Weights' seed of a trial: a function of (job seed, architecture), so that a score is a fact. */
uint64_t trial_seed(uint64_t job_seed, const char *arch_hash);
/* Does `text`, built at this proxy, hold the constraints? 1, 0, or an error (it cannot be built on these images). params, macs may be NULL. */
int  search_fits(const struct space *sp, const char *text, const struct image_shape *img, const struct proxy *proxy,
                 const struct constraints *c, uint64_t *params, uint64_t *macs, struct errbuf *e);

#endif
