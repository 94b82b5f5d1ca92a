/* jobfile_tree.c - YAML events or a jansson value into one small tree. Anchors, aliases, tags and further documents are
 * refused: a job file needs none of them, and aliases would let a small file grow without bound. */
#include "common/jobfile.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define MAX_DEPTH 8
#define MAX_NODES 4096

void jtree_fini(struct jtree *t)
{
    for (int i = 0; i < t->n; i++) {
        free(t->node[i].key);
        free(t->node[i].text);
    }
    free(t->node);
    *t = (struct jtree){ 0 };
}

/* A new node below `parent` (-1: the root). Takes nothing: key and text are copied. Its index, or a negative error. */
static int node_new(struct jtree *t, int parent, struct jnode v, const char *key, const char *text, struct errbuf *e)
{
    if (t->n == MAX_NODES)
        return err_set(e, ERR_INPUT, "more than %d values", MAX_NODES);
    if (t->n == t->cap) {
        int cap = t->cap ? 2 * t->cap : 64;
        struct jnode *p = realloc(t->node, (size_t)cap * sizeof *p);
        if (!p)
            return err_set(e, ERR_NOMEM, "out of memory for a job file");
        t->node = p;
        t->cap = cap;
    }
    v.key = key ? strdup(key) : NULL;
    v.text = text ? strdup(text) : NULL;
    int i = t->n++;
    t->node[i] = v;
    if ((key && !v.key) || (text && !v.text))
        return err_set(e, ERR_NOMEM, "out of memory for a job file");
    if (parent >= 0) {
        struct jnode *up = &t->node[parent];
        if (up->last)
            t->node[up->last].next = i;
        else
            up->first = i;
        up->last = i;
    }
    return i;
}

/* ---- YAML ---- */

struct loader {
    yaml_parser_t  parser;
    yaml_event_t   ev;          /* the current event; valid while `have` */
    bool           have;
    struct jtree  *t;
    const char    *file, *what; /* "job": what one file has one of */
    struct errbuf *e;
};

static int line_of(const struct loader *l)
{
    return (int)l->ev.start_mark.line + 1;
}

static int advance(struct loader *l)
{
    if (l->have)
        yaml_event_delete(&l->ev);
    l->have = false;
    if (!yaml_parser_parse(&l->parser, &l->ev)) {
        const yaml_parser_t *p = &l->parser;
        if (p->error == YAML_MEMORY_ERROR)
            return err_set(l->e, ERR_NOMEM, "out of memory for a job file");
        size_t line = p->problem_mark.line;
        if (p->error == YAML_READER_ERROR)
            return err_set(l->e, ERR_INPUT, "%s: not text at byte %zu: %s", l->file, p->problem_offset, p->problem);
        return err_set(l->e, ERR_INPUT, "%s: line %zu: not valid YAML: %s%s%s", l->file, line + 1, p->problem ? p->problem : "?",
                       p->context ? " " : "", p->context ? p->context : "");
    }
    l->have = true;
    return 0;
}

static int refuse(struct loader *l, const char *what)
{
    return err_set(l->e, ERR_INPUT, "%s: line %d: %s", l->file, line_of(l), what);
}

static int load_node(struct loader *l, int parent, const char *key, int depth);

static int load_map(struct loader *l, int self, int depth)
{
    int rc;
    while ((rc = advance(l)) == 0 && l->ev.type != YAML_MAPPING_END_EVENT) {
        if (l->ev.type != YAML_SCALAR_EVENT || l->ev.data.scalar.anchor)
            return refuse(l, l->ev.type == YAML_SCALAR_EVENT ? "anchors (&name) are not allowed" : "a key must be a word");
        char *key = strdup((const char *)l->ev.data.scalar.value);
        if (!key)
            return err_set(l->e, ERR_NOMEM, "out of memory for a job file");
        if ((rc = advance(l)) == 0)
            rc = load_node(l, self, key, depth + 1);
        free(key);
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int load_list(struct loader *l, int self, int depth)
{
    int rc;
    while ((rc = advance(l)) == 0 && l->ev.type != YAML_SEQUENCE_END_EVENT)
        if ((rc = load_node(l, self, NULL, depth + 1)) < 0)
            return rc;
    return rc;
}

/* The value that the current event opens. */
static int load_node(struct loader *l, int parent, const char *key, int depth)
{
    const yaml_event_t *ev = &l->ev;
    bool anchor = (ev->type == YAML_SCALAR_EVENT && ev->data.scalar.anchor) ||
                  (ev->type == YAML_SEQUENCE_START_EVENT && ev->data.sequence_start.anchor) ||
                  (ev->type == YAML_MAPPING_START_EVENT && ev->data.mapping_start.anchor);
    bool tag = (ev->type == YAML_SCALAR_EVENT && ev->data.scalar.tag) ||
               (ev->type == YAML_SEQUENCE_START_EVENT && ev->data.sequence_start.tag) ||
               (ev->type == YAML_MAPPING_START_EVENT && ev->data.mapping_start.tag);
    if (ev->type == YAML_ALIAS_EVENT || anchor)
        return refuse(l, "anchors (&name) and aliases (*name) are not allowed");
    if (tag)
        return refuse(l, "tags (!name) are not allowed");
    if (depth > MAX_DEPTH)
        return refuse(l, "nested too deep");
    struct jnode v = { .line = line_of(l) };
    if (ev->type == YAML_SCALAR_EVENT) {
        const char *text = (const char *)ev->data.scalar.value;
        if (strlen(text) != ev->data.scalar.length)
            return refuse(l, "a value holds a NUL character");
        v.plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        int rc = node_new(l->t, parent, v, key, text, l->e);
        return rc < 0 ? rc : 0;
    }
    v.kind = ev->type == YAML_MAPPING_START_EVENT ? J_MAP : J_LIST;
    int self = node_new(l->t, parent, v, key, NULL, l->e);
    if (self < 0)
        return self;
    return v.kind == J_MAP ? load_map(l, self, depth) : load_list(l, self, depth);
}

static int load(struct loader *l)
{
    int rc;
    if ((rc = advance(l)) < 0 /* stream start */ || (rc = advance(l)) < 0)
        return rc;
    if (l->ev.type == YAML_STREAM_END_EVENT)
        return err_set(l->e, ERR_INPUT, "%s: is empty", l->file);
    if ((rc = advance(l)) < 0 || (rc = load_node(l, -1, NULL, 0)) < 0 || (rc = advance(l)) < 0 /* document end */ ||
        (rc = advance(l)) < 0)
        return rc;
    char text[64];
    snprintf(text, sizeof text, "a second document; one file is one %s", l->what);
    return l->ev.type == YAML_STREAM_END_EVENT ? 0 : refuse(l, text);
}

int jtree_from_yaml(struct jtree *t, const char *text, size_t len, const char *file, const char *what, struct errbuf *e)
{
    struct loader l = { .t = t, .file = file, .what = what, .e = e };
    *t = (struct jtree){ 0 };
    if (len > JOB_TEXT_MAX)
        return err_set(e, ERR_INPUT, "%s: larger than %d bytes", file, JOB_TEXT_MAX);
    if (!yaml_parser_initialize(&l.parser))
        return err_set(e, ERR_NOMEM, "out of memory for a job file");
    yaml_parser_set_input_string(&l.parser, (const unsigned char *)text, len);
    int rc = load(&l);
    if (l.have)
        yaml_event_delete(&l.ev);
    yaml_parser_delete(&l.parser);
    if (rc < 0)
        jtree_fini(t);
    return rc;
}

/* ---- JSON ---- */

static int json_node(struct jtree *t, const json_t *j, int parent, const char *key, int depth, struct errbuf *e)
{
    struct jnode v = { .kind = json_is_object(j) ? J_MAP : json_is_array(j) ? J_LIST : J_SCALAR, .plain = !json_is_string(j) };
    char         number[40] = "";
    const char  *text = number, *k;
    json_t      *m;
    size_t       i;
    int          rc;
    if (depth > MAX_DEPTH)
        return err_set(e, ERR_INPUT, "nested too deep");
    if (json_is_string(j))
        text = json_string_value(j);
    else if (json_is_integer(j))
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(j));
    else if (json_is_real(j))
        snprintf(number, sizeof number, "%.17g", json_real_value(j));
    else if (json_is_boolean(j))
        text = json_is_true(j) ? "true" : "false";
    int self = node_new(t, parent, v, key, v.kind == J_SCALAR ? text : NULL, e);
    if (self < 0)
        return self;
    if (v.kind == J_MAP) {
        json_object_foreach((json_t *)j, k, m)
            if ((rc = json_node(t, m, self, k, depth + 1, e)) < 0)
                return rc;
    } else if (v.kind == J_LIST) {
        json_array_foreach((json_t *)j, i, m)
            if ((rc = json_node(t, m, self, NULL, depth + 1, e)) < 0)
                return rc;
    }
    return 0;
}

int jtree_from_json(struct jtree *t, const json_t *j, struct errbuf *e)
{
    *t = (struct jtree){ 0 };
    if (!j)
        return err_set(e, ERR_INPUT, "no job");
    int rc = json_node(t, j, -1, NULL, 0, e);
    if (rc < 0)
        jtree_fini(t);
    return rc;
}
