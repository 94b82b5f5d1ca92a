/* replay.c - the proof that a search's history is a function of its seed and its results: the searcher is run again and each
 * proposal compared with what was recorded. A searcher outside cannot be run; of its proposals it is proved that each is one that could
 * have been taken when it was. In libuv's pool, with a reader of its own. */
#include "coordinator/docs_int.h"

#include <stdlib.h>
#include <string.h>

struct replay {
    int           rc;
    struct errbuf *e;
    struct search *search;
    struct audit  *audit;      /* NULL: the job has none */
    int           n_warm;      /* candidates of a warm-up that workers voted on */
    uint64_t      checked;
    json_t       *difference; /* the first */
};

static json_t *side(const char *arch, int64_t parent, uint64_t seed)
{
    return json_pack("{s:s,s:o,s:o}", "arch", arch, "parent", parent >= 0 ? json_integer(parent) : json_null(), "seed", doc_seed(seed));
}

/* Its audit must have chosen this candidate; told in order, its results say where the search had to end. */
static bool on_audit(void *arg, const struct trial_row *t)
{
    struct replay *r = arg;
    struct trial_row *want = malloc(sizeof *want);
    int i = r->audit ? audit_find(r->audit, t->idx) : -1;
    if (!want) {
        r->rc = err_set(r->e, ERR_NOMEM, "replay");
        return false;
    }
    if (i >= 0)
        audit_row(r->audit, i, t->group == GROUP_CONTROL, want);
    if (i < 0 || strcmp(want->arch, t->arch) != 0 || want->seed != t->seed || want->proxy != t->proxy || want->group != t->group)
        r->difference = json_pack("{s:I,s:s}", "trial", (json_int_t)t->idx, "why", "the audit would not have chosen it");
    else if (t->state == TRIAL_SCORED || t->state == TRIAL_FAILED)
        audit_ended(r->audit, t);
    free(want);
    return !r->difference;
}

static bool on_warmup(void *arg, const struct trial_row *t)
{
    struct replay *r = arg;
    struct errbuf why = { 0 };
    int rc = warmup_recorded(r->search, r->n_warm, t, &why);
    if (rc == -ERR_CORRUPT)
        r->difference = json_pack("{s:I,s:s}", "trial", (json_int_t)t->idx, "why", why.text);
    else if (rc < 0)
        r->rc = err_set(r->e, (enum err)-rc, "%s", why.text);
    return rc == 0;
}

static void check_end(struct replay *r)
{
    uint64_t stop = r->audit ? audit_stop_at(r->audit) : UINT64_MAX;
    if (!r->difference && r->rc == 0 && search_next_index(r->search) > stop)
        r->difference = json_pack("{s:I,s:s}", "trial", (json_int_t)stop, "why", "the audit had ended the search before it");
}

static bool on_trial(void *arg, const struct trial_row *t)
{
    struct replay *r = arg;
    struct proposal p;
    if (t->idx != search_next_index(r->search) || !search_ready(r->search)) {
        r->difference = json_pack("{s:I,s:s}", "trial", (json_int_t)t->idx, "why",
                                  "it was proposed before the results that it depends on were there, or one before it is missing");
        return false;
    }
    bool external = search_is_external(r->search);
    struct errbuf why = { 0 };
    r->rc = external ? search_offer(r->search, t->idx, t->arch, &p, &why) : search_propose(r->search, &p, r->e);
    if (external && r->rc == -ERR_NOMEM)
        err_set(r->e, ERR_NOMEM, "replay");
    if (external && r->rc < 0 && r->rc != -ERR_NOMEM) {
        r->difference = json_pack("{s:I,s:s}", "trial", (json_int_t)t->idx, "why", err_message(&why, r->rc));
        r->rc = 0;
        return false;
    }
    if (r->rc < 0)
        return false;
    r->checked++;
    if (strcmp(p.arch, t->arch) != 0 || strcmp(p.hash, t->arch_hash) != 0 || p.parent != t->parent || p.rung != t->rung ||
        p.seed != t->seed) {
        r->difference = json_pack("{s:I,s:o,s:o}", "trial", (json_int_t)t->idx, "recorded", side(t->arch, t->parent, t->seed), "replayed",
                                  side(p.arch, p.parent, p.seed));
        return false;
    }
    if (external && (r->rc = search_recall(r->search, &p, r->e)) < 0)
        return false;
    bool ended = t->state == TRIAL_SCORED || t->state == TRIAL_FAILED || t->state == TRIAL_PRUNED;
    struct search_result told = job_told(t);
    if (ended || t->told_failed)
        r->rc = search_finish(r->search, &told, r->e);
    if (r->rc == 0 && r->audit && (ended || t->told_failed))
        r->rc = audit_saw(r->audit, t);
    return r->rc == 0;
}

int doc_replay(struct coord *c, struct reader *reader, const struct job_row *row, json_t **out, struct errbuf *e)
{
    struct replay r = { .e = e };
    struct job_spec *spec = calloc(1, sizeof *spec);
    struct image_shape img;
    json_t *doc = NULL;
    r.rc = spec ? 0 : err_set(e, ERR_NOMEM, "replay");
    if (r.rc == 0 && row->kind != JOB_SEARCH)
        r.rc = err_set(e, ERR_INPUT, "job %llu is a %s; only a search can be replayed", (unsigned long long)row->id, job_kind_name(row->kind));
    if (r.rc == 0 && !(doc = json_loads(row->spec_json, 0, NULL)))
        r.rc = err_set(e, ERR_CORRUPT, "the spec of job %llu is not JSON", (unsigned long long)row->id);
    if (r.rc == 0)
        r.rc = job_from_json(spec, doc, e);
    if (r.rc == 0)
        r.rc = spaces_of_job(c, spec, e);
    if (r.rc == 0)
        r.rc = coord_image_shape(c, spec->dataset_hash, &img, e);
    if (r.rc == 0)
        r.rc = search_open(&r.search, spec, &img, e);
    if (r.rc == 0)
        r.rc = audit_open(&r.audit, spec, e);
    if (r.rc == 0 && (r.n_warm = search_warmup(r.search, e)) < 0)
        r.rc = r.n_warm;
    if (r.rc == 0) {
        int rc = r.n_warm > 0 ? reader_trials(reader, row->id, -1, SORT_WARMUP, 0, 0, on_warmup, &r) : 0;
        if (rc >= 0 && r.rc == 0 && !r.difference)
            rc = reader_trials(reader, row->id, -1, SORT_INDEX, 0, 0, on_trial, &r);
        if (rc >= 0 && r.rc == 0 && !r.difference)
            rc = reader_trials(reader, row->id, -1, SORT_AUDIT, 0, 0, on_audit, &r);
        check_end(&r);
        if (rc < 0)
            r.rc = err_set(e, ERR_IO, "the store cannot be read");
    }
    if (r.rc == 0)
        *out = json_pack("{s:b,s:b,s:I,s:I,s:O?}", "ok", r.difference == NULL, "external", search_is_external(r.search), "proposals",
                         (json_int_t)search_next_index(r.search), "checked", (json_int_t)r.checked, "first_difference", r.difference);
    if (*out && !r.difference)
        json_object_set_new(*out, "first_difference", json_null());
    json_decref(r.difference);
    json_decref(doc);
    search_close(r.search);
    audit_close(r.audit);
    free(spec);
    return r.rc;
}
