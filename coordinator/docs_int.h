/* docs_int.h - between docs.c (the documents), verdict.c (statistics of verify, history of teach), audit_doc.c, replay.c, slow.c and metrics.c. */
#ifndef DIDACT_COORDINATOR_DOCS_INT_H
#define DIDACT_COORDINATOR_DOCS_INT_H

#include "coordinator/coord.h"

#include <jansson.h>

#define DOC_MAX_LIMIT 1000
#define DOC_MAX_PATH  2048 /* bytes, an architecture among them */

struct query { /* jobs/7/trials?state=scored&limit=10, taken apart */
    int      n_part;
    char     part[3][96];
    char     state[24], sort[24], by[24], after[BOOK_KEY_LEN + 1];
    uint64_t offset;
    int      limit, top, wait_s, n;
    int64_t  trial; /* -1: none given */
    uint64_t seed;
    char     arch[ARCH_TEXT_MAX];
    bool     limit_given;
};
int query_parse(const char *path, struct query *q, struct errbuf *e);

/* space_doc.c: spaces/NAME/sample, /mutate, /neighbours */
int doc_space(struct coord *c, const struct query *q, json_t **out, struct errbuf *e);

struct totals {
    uint64_t jobs[JOB_STATE_COUNT];
    struct job_counts trials;
    uint64_t waiting, running, online, slots, busy;
};
/* rank.c: jobs/ID/results?by=COLUMN */
bool docs_is_ranking(const char *path);
int  docs_ranking(struct coord *c, const char *path, docs_done done, void *arg, struct errbuf *e);

/* book_doc.c: book?after=KEY&limit=N */
int  doc_book(struct coord *c, const struct query *q, json_t **out, struct errbuf *e);

void docs_totals(struct coord *c, struct totals *t);

json_t *doc_real(double v);      /* null where not finite */
json_t *doc_ms(int64_t v);       /* null for 0 */
json_t *doc_text(const char *s); /* null for "" */
json_t *doc_int(uint64_t v);
json_t *doc_seed(uint64_t v);
json_t *doc_job(struct coord *c, const struct job_row *stored, bool with_spec);
json_t *doc_trial(struct coord *c, const struct trial_row *t, const char *space);
/* why.c: trial -1 asks for the job. */
int doc_why(struct coord *c, const struct job_row *stored, int64_t trial, json_t **out, struct errbuf *e);
void arch_change(const char *parent, const char *child, char *out, size_t cap); /* in words; "" where nothing changed */
void rung_change(const struct job_spec *spec, int from, int to, char *out, size_t cap); /* the same, of a promotion */
json_t *doc_history(const struct trial_row *t); /* the deterministic fields of a trial; touches nothing else */
int doc_verify(struct coord *c, const struct job_row *row, json_t *into, struct errbuf *e);
int doc_told(struct coord *c, const struct job_row *row, const struct query *q, json_t **out, struct errbuf *e); /* ask_doc.c */
int doc_front(struct coord *c, const struct job_row *row, json_t *into, struct errbuf *e); /* front.c */
int doc_teach(struct coord *c, const struct job_row *row, json_t *into, struct errbuf *e);
/* In the pool. */
int doc_replay(struct coord *c, struct reader *reader, const struct job_row *row, json_t **out, struct errbuf *e);
int doc_audit(struct coord *c, struct reader *reader, const struct job_row *row, json_t **out, struct errbuf *e);

#endif
