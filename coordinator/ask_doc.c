/* ask_doc.c - ask and tell as documents: the body of a request for proposals, its answer, and jobs/ID/told.
 *
 * Told. Results come in the order of proposals and without a gap: trial i is told once trials 0 … i have ended. So every reader is told the
 * same, whoever computed what and whatever was killed in between, and the number of the next one is all that a reader must remember.
 * A trial that was told as failed stays told as failed, though it be tried again (sched.h).
 * Waiting. A question with wait=SECONDS that nothing answers yet is put aside and looked at whenever the store has saved something. */
#include "coordinator/docs_int.h"

#include <stdlib.h>
#include <string.h>

#define MAX_TOLD_WAITS 1024 /* questions put aside */
#define MAX_WAIT_S     60

typedef unsigned long long ull;

/* ---- what is proposed ---- */

void proposals_fini(struct proposals *p)
{
    free(p->v);
    json_decref(p->doc);
    *p = (struct proposals){ 0 };
}

/* The text under `key`; "" where it is absent and may be. */
static int text_of(const json_t *o, const char *key, bool must, const char **out, struct errbuf *e)
{
    const json_t *v = json_object_get(o, key);
    *out = json_is_string(v) ? json_string_value(v) : "";
    if ((v && !json_is_string(v)) || (must && !v))
        return err_set(e, ERR_INPUT, v ? "%s: must be a text" : "%s: is missing", key);
    for (const char *s = *out; *s; s++) /* jansson has checked that it is UTF-8 */
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return err_set(e, ERR_INPUT, "%s: has a control character", key);
    return 0;
}

static int known_keys(const json_t *o, const char *const *keys, size_t n, struct errbuf *e)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        size_t i = 0;
        while (i < n && strcmp(key, keys[i]) != 0)
            i++;
        if (i == n)
            return err_set(e, ERR_INPUT, "%.40s: there is no such key", key);
    }
    return 0;
}

static int one(const json_t *o, struct asked *to, struct errbuf *e)
{
    static const char *const keys[] = { "arch", "tag" };
    int rc = json_is_object(o) ? known_keys(o, keys, 2, e) : err_set(e, ERR_INPUT, "must be {\"arch\": …, \"tag\": …}");
    if (rc == 0)
        rc = text_of(o, "arch", true, &to->arch, e);
    return rc == 0 ? text_of(o, "tag", false, &to->tag, e) : rc;
}

static int many(const json_t *list, struct proposals *p, struct errbuf *e)
{
    size_t n = json_array_size(list);
    if (n < 1 || n > ASK_MAX_BATCH)
        return err_set(e, ERR_INPUT, "trials: must be a list of 1 to %d proposals", ASK_MAX_BATCH);
    if (!(p->v = calloc(n, sizeof *p->v)))
        return err_set(e, ERR_NOMEM, "proposals");
    for (; p->n < n; p->n++) {
        int rc = one(json_array_get(list, p->n), &p->v[p->n], e);
        if (rc < 0)
            return err_wrap(e, rc, "trials[%zu]", p->n);
    }
    return 0;
}

static int read_body(struct proposals *p, struct errbuf *e)
{
    static const char *const keys[] = { "request", "trials", "arch", "tag" };
    const json_t *list = json_object_get(p->doc, "trials");
    int rc = known_keys(p->doc, keys, 4, e);
    if (rc == 0)
        rc = text_of(p->doc, "request", false, &p->request, e);
    if (rc < 0)
        return rc;
    if (list && (json_object_get(p->doc, "arch") || json_object_get(p->doc, "tag")))
        return err_set(e, ERR_INPUT, "trials: excludes arch and tag beside it");
    if (list)
        return many(list, p, e);
    if (!(p->v = calloc(1, sizeof *p->v)))
        return err_set(e, ERR_NOMEM, "proposals");
    p->n = 1;
    rc = text_of(p->doc, "arch", true, &p->v[0].arch, e);
    return rc == 0 ? text_of(p->doc, "tag", false, &p->v[0].tag, e) : rc;
}

int proposals_parse(const char *json, size_t len, struct proposals *out, struct errbuf *e)
{
    json_error_t je;
    *out = (struct proposals){ .request = "" };
    out->doc = json_loadb(json, len, JSON_REJECT_DUPLICATES, &je);
    int rc = out->doc ? 0 : err_set(e, ERR_INPUT, "the body is not JSON: line %d: %.200s", je.line, je.text);
    if (rc == 0)
        rc = json_is_object(out->doc) ? read_body(out, e) : err_set(e, ERR_INPUT, "the body must be {\"arch\": …} or {\"trials\": […]}");
    if (rc < 0)
        proposals_fini(out);
    return rc;
}

json_t *proposals_doc(const struct sched *s, const struct trial_row *row, size_t n, bool before)
{
    const struct job *j = sched_job(s, row->job);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_pack("{s:I,s:s,s:s,s:o,s:o,s:o}", "trial", (json_int_t)row[i].idx, "arch", row[i].arch, "arch_hash",
                                              row[i].arch_hash, "tag", doc_text(row[i].tag), "params",
                                              row[i].r.params ? doc_int(row[i].r.params) : json_null(), "macs",
                                              row[i].r.macs ? doc_int(row[i].r.macs) : json_null()));
    return json_pack("{s:I,s:o,s:b,s:I}", "job", (json_int_t)row->job, "trials", list, "repeated", before, "left",
                     (json_int_t)(j && j->search ? job_last_total(j) - search_next_index(j->search) : 0));
}

/* ---- what is told ---- */

struct telling { json_t *list; uint64_t next; };

static bool on_trial(void *arg, const struct trial_row *t)
{
    struct telling *k = arg;
    bool over = t->told_failed || t->state == TRIAL_SCORED || t->state == TRIAL_FAILED || t->state == TRIAL_PRUNED;
    if (t->idx != k->next || !over)
        return false;
    bool scored = t->state == TRIAL_SCORED && !t->told_failed;
    json_t *d = doc_history(t);
    static const char *const internal[] = { "parent", "rung", "told_failed", "valid_score", "artifact" };
    for (size_t i = 0; i < sizeof internal / sizeof *internal; i++)
        json_object_del(d, internal[i]);
    if (t->told_failed) { /* whatever became of it since */
        static const char *const numbers[] = { "score", "score_se", "loss_sum", "lr_scale", "zero_cost" };
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
            json_object_set_new(d, numbers[i], json_null());
        json_object_set_new(d, "init_scores", json_array());
        json_object_set_new(d, "checkpoints", json_array());
    }
    json_object_set_new(d, "state", json_string(trial_state_name(scored ? TRIAL_SCORED : TRIAL_FAILED)));
    json_object_set_new(d, "params", doc_int(t->r.params));
    json_object_set_new(d, "macs", doc_int(t->r.macs));
    json_object_set_new(d, "latency_ms", scored && t->r.latency_ms > 0 ? json_real(t->r.latency_ms) : json_null());
    json_object_set_new(d, "tag", doc_text(t->tag));
    json_array_append_new(k->list, d);
    k->next++;
    return true;
}

static int told_after(const struct query *q, uint64_t *after, struct errbuf *e)
{
    char *end;
    *after = strtoull(q->after, &end, 10);
    if (q->after[0] && (q->after[0] < '0' || q->after[0] > '9' || *end || *after >= TRIAL_AUDIT))
        return err_set(e, ERR_INPUT, "after: \"%.40s\" is not the number of a trial", q->after);
    return 0;
}

int doc_told(struct coord *c, const struct job_row *row, const struct query *q, json_t **out, struct errbuf *e)
{
    struct telling k = { .list = NULL };
    int rc = told_after(q, &k.next, e);
    if (rc == 0 && row->kind != JOB_SEARCH)
        rc = err_set(e, ERR_INPUT, "job %llu is a %s; a search tells results", (ull)row->id, job_kind_name(row->kind));
    if (rc < 0)
        return rc;
    k.list = json_array();
    if (reader_trials_from(c->reader, row->id, k.next, q->limit, on_trial, &k) < 0) {
        json_decref(k.list);
        return err_set(e, ERR_IO, "the store cannot be read");
    }
    const struct job *j = sched_job(c->sched, row->id);
    *out = json_pack("{s:I,s:s,s:I,s:o,s:o}", "job", (json_int_t)row->id, "state", job_state_name(j ? j->row.state : row->state), "next",
                     (json_int_t)k.next, "proposed", j && j->search ? doc_int(search_next_index(j->search)) : json_null(), "told", k.list);
    return *out ? 0 : err_set(e, ERR_NOMEM, "results");
}

/* ---- waiting ---- */

struct told_wait {
    struct link link;
    uint64_t    job, after;
    int64_t     until_ms;
    char        path[DOC_MAX_PATH];
    docs_done   done;
    void       *arg;
};

static bool is_told(const struct query *q) { return q->n_part == 3 && strcmp(q->part[0], "jobs") == 0 && strcmp(q->part[2], "told") == 0; }

/* Nothing new yet, and something may come. */
static bool nothing_yet(const struct coord *c, uint64_t job, uint64_t after)
{
    const struct job *j = sched_job(c->sched, job);
    return !c->stopping && j && j->search && search_told(j->search) <= after;
}

bool told_must_wait(struct coord *c, const char *path)
{
    struct query q;
    uint64_t id, after;
    return query_parse(path, &q, NULL) == 0 && is_told(&q) && q.wait_s > 0 && told_after(&q, &after, NULL) == 0 &&
           submit_find_job(c, q.part[1], &id, NULL) == 0 && nothing_yet(c, id, after);
}

int told_wait(struct coord *c, const char *path, docs_done done, void *arg, struct errbuf *e)
{
    struct query q;
    struct told_wait *w = NULL;
    int rc = query_parse(path, &q, e);
    if (rc == 0 && c->n_told_waits >= MAX_TOLD_WAITS)
        rc = err_set(e, ERR_BUSY, "%d questions wait for results already", MAX_TOLD_WAITS);
    if (rc == 0 && !(w = calloc(1, sizeof *w)))
        rc = err_set(e, ERR_NOMEM, "results");
    if (rc == 0 && (rc = told_after(&q, &w->after, e)) == 0)
        rc = submit_find_job(c, q.part[1], &w->job, e);
    if (rc < 0) {
        free(w);
        return rc;
    }
    w->until_ms = clock_ms() + 1000 * (q.wait_s < MAX_WAIT_S ? q.wait_s : MAX_WAIT_S);
    snprintf(w->path, sizeof w->path, "%s", path);
    w->done = done;
    w->arg = arg;
    list_append(&c->told_waits, &w->link);
    c->n_told_waits++;
    return 0;
}

static struct told_wait *first_due(struct coord *c, bool all)
{
    int64_t now = clock_ms();
    list_each(l, &c->told_waits) {
        struct told_wait *w = list_entry(l, struct told_wait, link);
        if (all || now >= w->until_ms || !nothing_yet(c, w->job, w->after))
            return w;
    }
    return NULL;
}

/* Answering may bring the next question, which is put aside in turn: from the start each time. */
void told_look(struct coord *c, bool all)
{
    struct told_wait *w;
    while ((w = first_due(c, all))) {
        struct errbuf e = { 0 };
        json_t *doc = NULL;
        list_remove(&w->link);
        c->n_told_waits--;
        int rc = docs_get(c, w->path, &doc, &e);
        w->done(w->arg, rc, doc, &e);
        json_decref(doc);
        free(w);
    }
}
