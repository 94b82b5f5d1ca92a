/* slow.c - documents that cost more than the loop can wait for: a job's replay and its audit (and rankings, rank.c). They are made in
 * libuv's pool, each with a reader of its own; their functions touch nothing of the scheduler. */
#include "coordinator/docs_int.h"

#include <stdlib.h>
#include <string.h>

typedef int (*slow_fn)(struct coord *c, struct reader *reader, const struct job_row *row, json_t **out, struct errbuf *e);
static const struct { const char *name; slow_fn fn; } table[] = { { "replay", doc_replay }, { "audit", doc_audit } };

struct slow {
    uv_work_t     work;
    struct coord *c;
    slow_fn       fn;
    uint64_t      id;
    docs_done     done;
    void         *arg;
    int           rc;
    struct errbuf e;
    json_t       *doc;
};

static slow_fn find(const struct query *q)
{
    for (size_t i = 0; q->n_part == 3 && strcmp(q->part[0], "jobs") == 0 && i < sizeof table / sizeof *table; i++)
        if (strcmp(q->part[2], table[i].name) == 0)
            return table[i].fn;
    return NULL;
}

bool docs_is_slow(struct coord *c, const char *path)
{
    struct query q;
    return (query_parse(path, &q, NULL) == 0 && find(&q)) || docs_is_ranking(path) || told_must_wait(c, path);
}

static void slow_work(uv_work_t *w)
{
    struct slow *s = w->data;
    struct reader *reader = NULL;
    struct job_row row = { 0 };
    s->rc = reader_open(&reader, s->c->db_path, &s->e);
    if (s->rc == 0 && reader_job(reader, s->id, &row) != 1)
        s->rc = err_set(&s->e, ERR_NOTFOUND, "there is no job %llu", (unsigned long long)s->id);
    if (s->rc == 0)
        s->rc = s->fn(s->c, reader, &row, &s->doc, &s->e);
    job_row_fini(&row);
    reader_close(reader);
}

static void on_made(uv_work_t *w, int status)
{
    struct slow *s = w->data;
    (void)status;
    if (s->rc == 0 && !s->doc)
        s->rc = err_set(&s->e, ERR_NOMEM, "document");
    s->done(s->arg, s->rc, s->doc, &s->e);
    json_decref(s->doc);
    free(s);
}

int docs_slow(struct coord *c, const char *path, docs_done done, void *arg, struct errbuf *e)
{
    struct query q;
    if (docs_is_ranking(path))
        return docs_ranking(c, path, done, arg, e);
    if (told_must_wait(c, path))
        return told_wait(c, path, done, arg, e);
    int rc = query_parse(path, &q, e);
    struct slow *s = rc == 0 ? calloc(1, sizeof *s) : NULL;
    if (rc == 0)
        rc = s ? submit_find_job(c, q.part[1], &s->id, e) : err_set(e, ERR_NOMEM, "document");
    if (rc == 0) {
        s->c = c;
        s->fn = find(&q);
        s->done = done;
        s->arg = arg;
        s->work.data = s;
        rc = uv_queue_work(&c->loop, &s->work, slow_work, on_made) == 0 ? 0 : err_set(e, ERR_NOMEM, "document");
    }
    if (rc < 0)
        free(s);
    return rc;
}
