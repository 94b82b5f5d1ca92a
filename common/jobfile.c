/* jobfile.c - a job file, `--set` and stored JSON become a spec; all three go through the same table and the same checks. */
#include "common/jobfile.h"
#include "common/suggest.h"

#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct filling {
    struct job_spec    *s;
    const struct jtree *t;
    struct problems    *p;
    int                 line[JOB_KEYS_MAX]; /* where each key was given; 0: not, or not from a file */
    bool                given[JOB_KEYS_MAX];
};

static bool has_kind(const struct job_key *k, enum job_kind kind)
{
    return k->kinds >> kind & 1;
}

/* Is `path` a group: does "path." open a key? Of this kind, or of any (kind < 0). */
static bool is_group(const char *path, int kind)
{
    size_t n = strlen(path);
    const struct job_key *k;
    for (int i = 0; (k = job_key_at(i)); i++)
        if (strncmp(k->path, path, n) == 0 && k->path[n] == '.' && (kind < 0 || has_kind(k, (enum job_kind)kind)))
            return true;
    return false;
}

/* The key nearest to `word` among those directly in `prefix` ("" or "teach."). */
static void unknown_key(struct filling *f, const struct jnode *v, const char *prefix)
{
    char        names[JOB_KEYS_MAX + 1][40], near[96];
    const char *known[JOB_KEYS_MAX + 1];
    int         n = 0;
    size_t      len = strlen(prefix);
    const struct job_key *k;
    for (int i = 0; (k = job_key_at(i)); i++)
        if (has_kind(k, f->s->kind) && strncmp(k->path, prefix, len) == 0) {
            snprintf(names[n], sizeof names[n], "%.*s", (int)strcspn(k->path + len, "."), k->path + len);
            known[n] = names[n];
            n++;
        }
    if (!*prefix)
        known[n++] = "kind";
    problem(f->p, v->line, "unknown key '%s%.40s'%s", prefix, v->key, suggest_text(near, sizeof near, v->key, known, n));
}

static bool repeated(const struct filling *f, const struct jnode *map, int self)
{
    for (int i = map->first; i && i != self; i = f->t->node[i].next)
        if (strcmp(f->t->node[i].key, f->t->node[self].key) == 0) {
            problem(f->p, f->t->node[self].line, "'%.40s' is given twice (first on line %d)", f->t->node[self].key, f->t->node[i].line);
            return true;
        }
    return false;
}

static void fill_key(struct filling *f, int key, const struct jnode *v)
{
    const struct job_key *k = job_key_at(key);
    if (!has_kind(k, f->s->kind)) {
        problem(f->p, v->line, "'%s' is not for a %s job", k->path, job_kind_name(f->s->kind));
        return;
    }
    if (f->given[key]) { /* "fidelity.inits: 2" at the top and in its group */
        problem(f->p, v->line, "'%s' is given twice (first on line %d)", k->path, f->line[key]);
        return;
    }
    f->line[key] = v->line;
    f->given[key] = true;
    job_key_read(k, f->t, v, f->s, f->p);
}

static void fill_map(struct filling *f, const struct jnode *map, const char *prefix, int depth)
{
    char path[128], group[132];
    for (int i = map->first; i; i = f->t->node[i].next) {
        const struct jnode *v = &f->t->node[i];
        if (repeated(f, map, i) || (!*prefix && strcmp(v->key, "kind") == 0))
            continue;
        snprintf(path, sizeof path, "%s%.80s", prefix, v->key);
        int key = job_key_index(path);
        if (key >= 0) {
            fill_key(f, key, v);
        } else if (!is_group(path, -1)) {
            unknown_key(f, v, prefix);
        } else if (!is_group(path, (int)f->s->kind)) {
            problem(f->p, v->line, "'%s' is not for a %s job", path, job_kind_name(f->s->kind));
        } else if (v->kind != J_MAP) {
            if (v->kind != J_SCALAR || *v->text) /* "fidelity:" with nothing under it is fine */
                problem(f->p, v->line, "'%s' must be a group of keys", path);
        } else {
            assert(depth < 4); /* groups exist in the table only */
            snprintf(group, sizeof group, "%s.", path);
            fill_map(f, v, group, depth + 1);
        }
    }
}

static const struct jnode *member(const struct jtree *t, const struct jnode *map, const char *key)
{
    for (int i = map->first; i; i = t->node[i].next)
        if (strcmp(t->node[i].key, key) == 0)
            return &t->node[i];
    return NULL;
}

/* The kind decides which keys there are, so it comes first, wherever it stands. */
static bool find_kind(const struct jtree *t, enum job_kind *out, struct problems *p)
{
    const char *kinds[JOB_KIND_COUNT];
    char        near[96];
    for (int i = 0; i < JOB_KIND_COUNT; i++)
        kinds[i] = job_kind_name((enum job_kind)i);
    if (t->node[0].kind != J_MAP) {
        problem(p, t->node[0].line, "a job is a list of 'key: value', such as 'kind: search'");
        return false;
    }
    const struct jnode *v = member(t, &t->node[0], "kind");
    if (!v) {
        problem(p, 0, "'kind' is missing: teach, search or verify");
        return false;
    }
    int k = v->kind == J_SCALAR ? job_kind_from(v->text) : -1;
    if (k < 0) {
        const char *word = v->kind == J_SCALAR ? v->text : "a group of keys";
        problem(p, v->line, "'kind' must be teach, search or verify, not '%.40s'%s", word,
                suggest_text(near, sizeof near, word, kinds, JOB_KIND_COUNT));
        return false;
    }
    *out = (enum job_kind)k;
    return true;
}

static void need_keys(struct filling *f)
{
    const struct job_key *k;
    for (int i = 0; (k = job_key_at(i)); i++) {
        bool hash = k->form == F_REF && *((const char *)f->s + k->off_n); /* its hash alone will do */
        if (has_kind(k, f->s->kind) && !k->def[f->s->kind] && !f->given[i] && !hash)
            problem(f->p, 0, "'%s' is missing", k->path);
    }
}

/* Constants that were not given are those of the optimiser that was. */
static void follow_inner(const struct filling *f)
{
    struct teach_cfg *t = &f->s->teach, d = job_inner_defaults(t->inner.type);
    if (!f->given[job_key_index("teach.lr")])          t->lr = d.lr;
    if (!f->given[job_key_index("teach.inner.eps")])   t->inner.eps = d.inner.eps;
    if (!f->given[job_key_index("teach.inner.beta2")]) t->inner.beta2 = d.inner.beta2;
}

static int fill(const struct jtree *t, struct job_spec *out, struct problems *p, struct errbuf *e)
{
    enum job_kind kind;
    if (find_kind(t, &kind, p)) {
        job_defaults(out, kind);
        struct filling f = { .s = out, .t = t, .p = p };
        fill_map(&f, &t->node[0], "", 0);
        need_keys(&f);
        if (kind == JOB_TEACH)
            follow_inner(&f);
        if (p->n == 0) /* values that were not read cannot be compared */
            job_check(out, f.given, f.line, p);
    }
    return problems_result(p, e);
}

int jobfile_parse(const char *text, size_t len, const char *file, struct job_spec *out, struct errbuf *e)
{
    struct jtree    t;
    struct problems p = { .file = file };
    int rc = jtree_from_yaml(&t, text, len, file, "job", e);
    if (rc < 0)
        return rc;
    rc = fill(&t, out, &p, e);
    jtree_fini(&t);
    return rc;
}

int job_from_json(struct job_spec *s, const json_t *j, struct errbuf *e)
{
    struct jtree    t;
    struct problems p = { 0 };
    int rc = jtree_from_json(&t, j, e);
    if (rc < 0)
        return rc;
    rc = fill(&t, s, &p, e);
    jtree_fini(&t);
    return rc;
}

/* ---- --set ---- */

/* Read `value` as YAML into the spec's key; then everything must still fit together. */
static int set_value(struct job_spec *s, int key, const char *value, struct errbuf *e)
{
    struct jtree     t;
    struct problems  p = { .file = "--set" };
    struct job_spec *next = malloc(sizeof *next);
    if (!next)
        return err_set(e, ERR_NOMEM, "out of memory for a job");
    int rc = jtree_from_yaml(&t, value, strlen(value), "--set", "value", e);
    if (rc < 0)
        goto done;
    *next = *s;
    for (int i = 0; i < t.n; i++)
        t.node[i].line = 0; /* "line 1" would say nothing */
    job_key_read(job_key_at(key), &t, &t.node[0], next, &p);
    if (s->kind == JOB_TEACH && next->teach.inner.type != s->teach.inner.type) { /* defaults move with the optimiser */
        const struct teach_cfg was = job_inner_defaults(s->teach.inner.type), is = job_inner_defaults(next->teach.inner.type);
        if (s->teach.lr == was.lr)                   next->teach.lr = is.lr;
        if (s->teach.inner.eps == was.inner.eps)     next->teach.inner.eps = is.inner.eps;
        if (s->teach.inner.beta2 == was.inner.beta2) next->teach.inner.beta2 = is.inner.beta2;
    }
    if ((rc = problems_result(&p, e)) == 0)
        *s = *next;
    jtree_fini(&t);
done:
    free(next);
    return rc;
}

static int set_key(struct job_spec *s, const char *assignment, bool *given, struct errbuf *e)
{
    const char *known[JOB_KEYS_MAX], *eq = strchr(assignment, '=');
    char        path[96], near[96];
    int         n = 0;
    if (!eq || eq == assignment || (size_t)(eq - assignment) >= sizeof path)
        return err_set(e, ERR_INPUT, "--set %.80s: must be key=value, such as budget.trials=50", assignment);
    snprintf(path, sizeof path, "%.*s", (int)(eq - assignment), assignment);
    int key = job_key_index(path);
    const struct job_key *k = job_key_at(key);
    if (strcmp(path, "kind") == 0)
        return err_set(e, ERR_INPUT, "--set: the kind of a job cannot be changed");
    if (k && has_kind(k, s->kind)) {
        given[key] = true;
        return set_value(s, key, eq + 1, e);
    }
    if (k)
        return err_set(e, ERR_INPUT, "--set: '%s' is not for a %s job", path, job_kind_name(s->kind));
    for (int i = 0; (k = job_key_at(i)); i++)
        if (has_kind(k, s->kind))
            known[n++] = k->path;
    return err_set(e, ERR_INPUT, "--set: unknown key '%s'%s", path, suggest_text(near, sizeof near, path, known, n));
}

int jobfile_set_all(struct job_spec *s, char *const *assignment, int n, struct errbuf *e)
{
    struct problems  p = { .file = "--set" };
    struct job_spec *next = malloc(sizeof *next);
    bool             given[JOB_KEYS_MAX] = { false };
    int              line[JOB_KEYS_MAX];
    if (!next)
        return err_set(e, ERR_NOMEM, "out of memory for a job");
    int rc = 0;
    *next = *s;
    for (int i = 0; i < n && rc == 0; i++)
        rc = set_key(next, assignment[i], given, e);
    if (rc == 0 && n > 0) {
        for (int i = 0; i < JOB_KEYS_MAX; i++)
            line[i] = given[i] ? -1 : 0;
        job_check(next, given, line, &p);
        rc = problems_result(&p, e);
    }
    if (rc == 0)
        *s = *next;
    else if (e)
        utf8_clean(e->text);
    free(next);
    return rc;
}

int jobfile_set(struct job_spec *s, const char *assignment, struct errbuf *e)
{
    return jobfile_set_all(s, &(char *){ (char *)(uintptr_t)assignment }, 1, e);
}

/* ---- JSON ---- */

/* Put v at "a.b.c" of j, making the objects on the way; takes v. */
static int put(json_t *j, const char *path, json_t *v)
{
    char        part[40];
    const char *dot;
    while ((dot = strchr(path, '.'))) {
        snprintf(part, sizeof part, "%.*s", (int)(dot - path), path);
        json_t *sub = json_object_get(j, part);
        if (!sub && json_object_set_new(j, part, sub = json_object()) < 0) {
            json_decref(v);
            return -ERR_NOMEM;
        }
        j = sub;
        path = dot + 1;
    }
    return json_object_set_new(j, path, v) < 0 ? -ERR_NOMEM : 0;
}

json_t *job_to_json(const struct job_spec *s)
{
    json_t *j = json_pack("{s:s}", "kind", job_kind_name(s->kind));
    const struct job_key *k;
    for (int i = 0; j && (k = job_key_at(i)); i++) {
        if (!has_kind(k, s->kind))
            continue;
        json_t *v = job_key_json(k, s);
        if (v && put(j, k->path, v) < 0) {
            json_decref(j);
            j = NULL;
        }
    }
    return j;
}
