/* clone.c - the job file of a job, written again from its spec: every key that it had or got by default.
 * A clone means the same data, so names are kept only while they still lead to the content that the job had. */
#include "client/verbs.h"

#include "common/fsio.h"

#include <stdlib.h>
#include <string.h>

/* A word as it is, where YAML takes it for nothing else; otherwise JSON, which YAML reads. */
static void put_scalar(FILE *f, const json_t *v)
{
    static const char *const words[] = { "true", "false", "null", "yes", "no", "on", "off", "y", "n" };
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    const char *s = json_string_value(v);
    bool plain = s && ((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z')) && s[strspn(s, letters)] == 0;
    for (size_t i = 0; plain && i < sizeof words / sizeof words[0]; i++)
        plain = strcasecmp(s, words[i]) != 0;
    char *text = plain ? NULL : json_short(v);
    fputs(plain ? s : text ? text : "\"\"", f);
    free(text);
}

static void put_map(FILE *f, const json_t *obj, int depth)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)obj, key, v) {
        fprintf(f, "%*s%s:", 2 * depth, "", key);
        if (json_is_object(v)) {
            fputc('\n', f);
            put_map(f, v, depth + 1);
            continue;
        }
        fputc(' ', f);
        put_scalar(f, v);
        fputc('\n', f);
    }
}

int job_file_text(const json_t *spec, char **out, struct errbuf *e)
{
    size_t len = 0;
    FILE *f = open_memstream(out, &len);
    if (!f)
        return err_set(e, ERR_NOMEM, "out of memory");
    put_map(f, spec, 0);
    return fclose(f) == 0 && *out ? 0 : err_set(e, ERR_NOMEM, "out of memory");
}

/* `key` of the spec: the name it has, if that name is still what `key`_hash says; else the hash itself, if anything is. */
static int settle_name(struct conn *conn, json_t *spec, const char *key, const char *list, struct errbuf *e)
{
    char hash_key[32];
    snprintf(hash_key, sizeof hash_key, "%s_hash", key);
    char *hash = strdup(doc_str(spec, hash_key));
    const char *name = doc_str(spec, key);
    bool as_named = false, there = false;
    json_t *doc = NULL, *b;
    size_t i;
    int rc = !hash ? err_set(e, ERR_NOMEM, "out of memory") : *hash ? conn_query(conn, &doc, e, "%s", list) : 0;
    json_array_foreach(json_object_get(doc, list), i, b) {
        bool same = strcmp(doc_str(b, "hash"), hash) == 0;
        there |= same;
        as_named |= same && strcmp(doc_str(b, "name"), name) == 0;
    }
    if (rc == 0 && *hash && !there)
        rc = err_set(e, ERR_STATE, "the %s %s that this job had (%.12s…) is not here any more: that name means another one now, or none",
                     key, name, hash);
    else if (rc == 0 && *hash && !as_named)
        json_object_set_new(spec, key, json_string(hash));
    json_object_del(spec, hash_key); /* filled in at submission */
    json_decref(doc);
    free(hash);
    return rc;
}

/* The spec with what --set changes. */
static int changed_spec(struct cli *c, const json_t *spec, json_t **out)
{
    struct job_spec *s = malloc(sizeof *s);
    char *set[CLI_MAX_GIVEN];
    int   n = 0, rc = s ? job_from_json(s, spec, c->e) : err_set(c->e, ERR_NOMEM, "out of memory");
    for (int i = 0; i < c->n_given; i++)
        if (strcmp(c->given[i].flag->name, "set") == 0)
            set[n++] = (char *)(uintptr_t)c->given[i].value;
    if (rc == 0)
        rc = jobfile_set_all(s, set, n, c->e);
    if (rc == 0 && !(*out = job_to_json(s)))
        rc = err_set(c->e, ERR_NOMEM, "out of memory");
    free(s);
    return rc;
}

static int clone_text(struct cli *c, struct conn *conn, char **text)
{
    json_t *doc, *old, *spec = NULL;
    int rc = conn_query(conn, &doc, c->e, "jobs/%s", c->arg[0]);
    if (rc < 0)
        return rc;
    old = json_object_get(doc, "spec");
    rc = settle_name(conn, old, "dataset", "datasets", c->e);
    if (rc == 0)
        rc = settle_name(conn, old, "curriculum", "curricula", c->e);
    if (rc == 0)
        rc = changed_spec(c, old, &spec);
    if (rc == 0)
        rc = job_file_text(spec, text, c->e);
    json_decref(spec);
    json_decref(doc);
    return rc;
}

int verb_clone(struct cli *c)
{
    struct conn *conn;
    char *text = NULL;
    const char *path = cli_str(c, "output", NULL);
    int rc = cli_conn(c, &conn);
    if (rc == 0)
        rc = clone_text(c, conn, &text);
    if (rc == 0 && (cli_has(c, "print") || (path && strcmp(path, "-") == 0))) {
        fputs(text, stdout);
    } else if (rc == 0 && path) {
        rc = fs_write_atomic(path, text, strlen(text), c->e);
        if (rc == 0)
            printf("%s\n", path);
    } else if (rc == 0) {
        name_str id;
        rc = submit_text(conn, text, "clone", id, c->e);
        if (rc == 0 && c->json)
            printf("{\"id\": %s}\n", id);
        else if (rc == 0)
            printf("job %s submitted\n", id);
    }
    free(text);
    return rc;
}
