/* replay.c - the proof that a search's history is a function of its seed and its results: the searcher is run again and each
 * proposal compared with what was recorded. In libuv's pool, with a reader of its own. */
#include "coordinator/docs_int.h"

#include <stdlib.h>
#include <string.h>

struct replay {
    uv_work_t     work;
    struct coord *c;
    uint64_t      id;
    docs_done     done;
    void         *arg;
    int           rc;
    struct errbuf e;
    struct search *search;
    uint64_t      checked;
    json_t       *difference; /* the first */
    json_t       *doc;
};

bool docs_is_replay(const char *path)
{
    struct query q;
    return query_parse(path, &q, NULL) == 0 && q.n_part == 3 && strcmp(q.part[0], "jobs") == 0 && strcmp(q.part[2], "replay") == 0;
}

static json_t *side(const char *arch, int64_t parent, uint64_t seed)
{
    return json_pack("{s:s,s:o,s:o}", "arch", arch, "parent", parent >= 0 ? json_integer(parent) : json_null(), "seed", doc_seed(seed));
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
    r->rc = search_propose(r->search, &p, &r->e);
    if (r->rc < 0)
        return false;
    r->checked++;
    if (strcmp(p.arch, t->arch) != 0 || strcmp(p.hash, t->arch_hash) != 0 || p.parent != t->parent || p.rung != t->rung ||
        p.seed != t->seed) {
        r->difference = json_pack("{s:I,s:o,s:o}", "trial", (json_int_t)t->idx, "recorded", side(t->arch, t->parent, t->seed), "replayed",
                                  side(p.arch, p.parent, p.seed));
        return false;
    }
    struct search_result told = job_told(t);
    if (t->state == TRIAL_SCORED || t->state == TRIAL_FAILED || t->state == TRIAL_PRUNED)
        r->rc = search_finish(r->search, &told, &r->e);
    return r->rc == 0;
}

static void replay_work(uv_work_t *w)
{
    struct replay *r = w->data;
    struct reader *reader = NULL;
    struct job_row row = { 0 };
    struct job_spec *spec = calloc(1, sizeof *spec);
    struct image_shape img;
    json_t *doc = NULL;
    r->rc = spec ? reader_open(&reader, r->c->db_path, &r->e) : err_set(&r->e, ERR_NOMEM, "replay");
    if (r->rc == 0 && reader_job(reader, r->id, &row) != 1)
        r->rc = err_set(&r->e, ERR_NOTFOUND, "there is no job %llu", (unsigned long long)r->id);
    if (r->rc == 0 && row.kind != JOB_SEARCH)
        r->rc = err_set(&r->e, ERR_INPUT, "job %llu is a %s; only a search can be replayed", (unsigned long long)r->id, job_kind_name(row.kind));
    if (r->rc == 0 && !(doc = json_loads(row.spec_json, 0, NULL)))
        r->rc = err_set(&r->e, ERR_CORRUPT, "the spec of job %llu is not JSON", (unsigned long long)r->id);
    if (r->rc == 0)
        r->rc = job_from_json(spec, doc, &r->e);
    if (r->rc == 0)
        r->rc = coord_image_shape(r->c, spec->dataset_hash, &img, &r->e);
    if (r->rc == 0)
        r->rc = search_open(&r->search, spec, &img, &r->e);
    if (r->rc == 0) {
        int rc = reader_trials(reader, r->id, -1, SORT_INDEX, 0, 0, on_trial, r);
        if (rc < 0)
            r->rc = err_set(&r->e, ERR_IO, "the store cannot be read");
    }
    if (r->rc == 0)
        r->doc = json_pack("{s:b,s:I,s:I,s:O?}", "ok", r->difference == NULL, "proposals", (json_int_t)search_next_index(r->search), "checked",
                           (json_int_t)r->checked, "first_difference", r->difference);
    if (r->doc && !r->difference)
        json_object_set_new(r->doc, "first_difference", json_null());
    json_decref(r->difference);
    json_decref(doc);
    search_close(r->search);
    job_row_fini(&row);
    reader_close(reader);
    free(spec);
}

static void on_replayed(uv_work_t *w, int status)
{
    struct replay *r = w->data;
    (void)status;
    if (r->rc == 0 && !r->doc)
        r->rc = err_set(&r->e, ERR_NOMEM, "replay");
    r->done(r->arg, r->rc, r->doc, &r->e);
    json_decref(r->doc);
    free(r);
}

int docs_replay(struct coord *c, const char *path, docs_done done, void *arg, struct errbuf *e)
{
    struct query q;
    int rc = query_parse(path, &q, e);
    struct replay *r = rc == 0 ? calloc(1, sizeof *r) : NULL;
    if (rc == 0)
        rc = r ? submit_find_job(c, q.part[1], &r->id, e) : err_set(e, ERR_NOMEM, "replay");
    if (rc == 0) {
        r->c = c;
        r->done = done;
        r->arg = arg;
        r->work.data = r;
        rc = uv_queue_work(&c->loop, &r->work, replay_work, on_replayed) == 0 ? 0 : err_set(e, ERR_NOMEM, "replay");
    }
    if (rc < 0)
        free(r);
    return rc;
}
