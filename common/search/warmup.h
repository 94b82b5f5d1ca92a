/* warmup.h - where a search starts: the best of thousands of candidates by a score that costs no training.
 * Candidates are uniform draws that may be proposed, repeats dropped, a function of the job's seed alone; ties go to the earlier draw.
 * They are ranked at once by one cheap score, or, once all are told, by a vote: the sum of log ranks in several columns (score_column.h). The
 * zero-cost scores among these need tensors, so somebody else computes them; a candidate for which that failed is no start.
 * Published for ageing evolution on NAS-Bench-201 with 3,000 synflow scores: 40–70 evaluations instead of 115 (Abdelfattah et al.,
 * ICLR 2021, arXiv:2101.08134). */
#ifndef DIDACT_SEARCH_WARMUP_H
#define DIDACT_SEARCH_WARMUP_H

#include "common/search/search.h"

/* A score that the coordinator computes by itself; more is better. */
struct cheap_score {
    const char *name;
    double    (*score)(uint64_t params, uint64_t macs);
};
const struct cheap_score *cheap_find(const char *name); /* NULL: none */

struct candidate { double score; uint64_t draw, params, macs; bool told; char hash[ARCH_HASH_LEN + 1], *arch; /* owned */ };
struct warmup {
    bool drawn, made;        /* made: ranked */
    int  n, next;            /* the head is candidate[next] */
    int  keep, n_told, n_vote, vote[SCORE_COLUMNS];
    struct candidate *candidate; /* owned; best first once made, before in the order of their draws */
    double *value;           /* owned; [n_vote][n] while they are told */
};

/* Draws, and ranks where nobody has to be asked: candidates * (a build of the network) of time. -ERR_NOMEM; then it is as before. */
int  warmup_make(struct warmup *w, const struct job_spec *spec, const struct space *space, const struct search_world *world,
                 struct errbuf *e);
/* Candidate i's zero-cost scores; NULL: it has none. Each once; the last one told makes it. -ERR_NOMEM: it is not made, and may be told again. */
int  warmup_tell(struct warmup *w, int i, const struct zero_cost_scores *z, struct errbuf *e);
void warmup_fini(struct warmup *w);
bool warmup_head(const struct warmup *w, const char **arch, const char **hash); /* false: none is left */

#endif
