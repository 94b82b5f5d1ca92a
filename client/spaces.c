/* spaces.c - search spaces: those that are built in, which nobody has to be asked about, and those from files: imported, listed, shown, taken
 * along with a job that names a file, and fetched by content where a job's networks are drawn or written. */
#include "client/spaces.h"
#include "client/blocks.h"

#include "common/fsio.h"
#include "common/net.h"
#include "common/rng.h"

#include <stdlib.h>
#include <string.h>

#define SAMPLE_DRAWS 1000 /* for one architecture that fits the images */

/* ---- content ---- */

static int fetch(struct conn *conn, const char *hash, char **text, size_t *len, struct errbuf *e)
{
    uint8_t *bytes = NULL;
    uint64_t total = 0;
    hash_str found;
    int rc = conn_get_head(conn, hash, &bytes, len, &total, e);
    if (rc < 0)
        return rc;
    hash_bytes(bytes, *len, found);
    *text = (char *)bytes;
    if (total == *len && strcmp(found, hash) == 0)
        return 0;
    free(bytes);
    return err_set(e, ERR_CORRUPT, "the space %.16s… arrived with another content", hash);
}

int space_need(struct conn *conn, const char *name, const char *hash, const struct space **out, struct errbuf *e)
{
    char  *text;
    size_t len;
    if ((*out = space_find(name)))
        return 0;
    if (!*hash)
        return err_set(e, ERR_NOTFOUND, "this didact does not know the search space '%s'", name);
    int rc = fetch(conn, hash, &text, &len, e);
    if (rc < 0)
        return err_wrap(e, rc, "space %s", name);
    rc = space_file_register(text, len, name, out, e);
    free(text);
    return rc;
}

int space_named(struct cli *c, const char *name, const struct space **out)
{
    struct conn *conn;
    name_str given;
    hash_str hash;
    const char *at = strrchr(name, '@');
    if ((*out = space_find(name)))
        return 0;
    if (space_is_path(name))
        return space_file_load(name, out, c->e);
    int rc = cli_conn(c, &conn);
    if (rc < 0) {
        struct errbuf why = *c->e;
        return err_set(c->e, ERR_NOTFOUND, "'%s' is no built-in space and names no file (no '/' and no .yaml), and for imported ones nobody can be asked: %s",
                       name, why.text);
    }
    rc = thing_find(conn, "spaces", at ? at + 1 : name, given, hash, c->e);
    return rc < 0 ? rc : space_need(conn, "", hash, out, c->e);
}

/* ---- import, export ---- */

static int push(struct conn *conn, const char *file, const char *name, const struct space **out, struct errbuf *e)
{
    int rc = space_file_load(file, out, e); /* what is wrong is told here, with its line */
    return rc < 0 ? rc : thing_upload(conn, file, (*out)->hash, "space", name ? name : space_file_name(*out), e);
}

int verb_space_import(struct cli *c)
{
    struct conn *conn;
    const struct space *s;
    const char *name = cli_str(c, "name", c->n_args > 1 ? c->arg[1] : NULL);
    if (name && strlen(name) > NAME_MAX_LEN)
        return err_set(c->e, ERR_USAGE, "the name is longer than %d characters", NAME_MAX_LEN);
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = push(conn, c->arg[0], name, &s, c->e)) < 0)
        return rc;
    name = name ? name : space_file_name(s);
    if (c->json) {
        json_t *doc = json_pack("{s:s,s:s,s:s,s:s}", "kind", "space", "name", name, "hash", s->hash, "space", s->name);
        print_json(stdout, doc);
        json_decref(doc);
    } else {
        printf("space %s  %s\n", name, s->hash);
    }
    return 0;
}

int verb_space_export(struct cli *c)
{
    const char *at = strrchr(c->arg[0], '@');
    if (at) /* an identity: its content, whatever the name means today */
        c->arg[0] = at + 1;
    return thing_export(c, "spaces", ".yaml");
}

/* ---- taken along with a job ---- */

static int take(struct conn *conn, const char *path, const char *beside, struct spaces_taken *t, const struct space **out, struct errbuf *e)
{
    char dir[FS_PATH_MAX], full[FS_PATH_MAX + NAME_MAX_LEN + 2];
    bool relative = beside && *path != '/';
    if (relative)
        fs_dir_of(beside, dir);
    snprintf(full, sizeof full, "%s%s%s", relative ? dir : "", relative ? "/" : "", path);
    int rc = push(conn, full, "", out, e); /* without a name until the job is in: a refused job changes nothing */
    if (rc == 0) {
        snprintf(t->file[t->n], sizeof t->file[0], "%s", full);
        t->space[t->n++] = *out;
    }
    return rc;
}

static int take_mix(struct conn *conn, const struct teach_cfg *c, const struct teach_cfg *in_file, const char *file, struct spaces_taken *t,
                    struct errbuf *e)
{
    size_t n = (size_t)snprintf(t->set[t->n_set], sizeof t->set[0], "teach.learners_mix=[");
    int before = t->n, rc = 0;
    for (int i = 0; i < c->n_mix && rc == 0; i++) {
        const struct space *s = NULL;
        const char *name = c->mix_hash[i][0] ? c->mix_hash[i] : c->mix_space[i];
        if (space_is_path(c->mix_space[i])) {
            bool from_file = i < in_file->n_mix && strcmp(in_file->mix_space[i], c->mix_space[i]) == 0;
            if ((rc = take(conn, c->mix_space[i], from_file ? file : NULL, t, &s, e)) == 0)
                name = s->hash;
        }
        n += (size_t)snprintf(t->set[t->n_set] + n, sizeof t->set[0] - n, "%s{space: %s, weight: %.17g}", i ? ", " : "", name, c->mix_weight[i]);
    }
    snprintf(t->set[t->n_set] + n, sizeof t->set[0] - n, "]");
    t->n_set += t->n > before;
    return rc < 0 ? err_wrap(e, rc, "teach.learners_mix") : 0;
}

int spaces_take(struct conn *conn, const char *yaml, const char *file, int n_set, const char *const *set, struct spaces_taken *t, struct errbuf *e)
{
    struct job_spec *spec = malloc(2 * sizeof *spec); /* the file's, and with what --set changes */
    const struct space *s;
    int rc = 0;
    t->n = t->n_set = 0;
    if (!spec)
        return err_set(e, ERR_NOMEM, "out of memory");
    bool valid = jobfile_parse(yaml, strlen(yaml), "", &spec[0], NULL) == 0;
    spec[1] = spec[0];
    if (!valid || jobfile_set_all(&spec[1], (char *const *)(uintptr_t)set, n_set, NULL) < 0) {
        free(spec); /* the coordinator says what is wrong with it */
        return 0;
    }
    if (spec[1].kind != JOB_TEACH && space_is_path(spec[1].space)) {
        rc = take(conn, spec[1].space, strcmp(spec[0].space, spec[1].space) == 0 ? file : NULL, t, &s, e);
        if (rc == 0)
            snprintf(t->set[t->n_set++], sizeof t->set[0], "space=%s", s->hash);
        else
            err_wrap(e, rc, "space");
    }
    if (rc == 0 && spec[1].kind == JOB_TEACH)
        rc = take_mix(conn, &spec[1].teach, &spec[0].teach, file, t, e);
    free(spec);
    return rc;
}

int spaces_name(struct conn *conn, const struct spaces_taken *t, struct errbuf *e)
{
    int rc = 0;
    for (int i = 0; i < t->n && rc == 0; i++)
        rc = thing_upload(conn, t->file[i], t->space[i]->hash, "space", space_file_name(t->space[i]), e);
    return rc;
}

/* ---- list ---- */

static void list_space(const struct space *s, const char *name, struct table *t, json_t *list)
{
    json_array_append_new(list, json_pack("{s:s,s:s,s:f,s:s,s:s?}", "name", name, "about", s->about, "size", s->size, "space", s->name, "hash", s->hash));
    table_cell(t, "%s", name);
    s->size < 1e6 ? table_cell(t, "%.0f", s->size) : table_cell(t, "%.1e", s->size);
    table_cell(t, "%.12s", s->hash ? s->hash : "built in");
    table_cell(t, "%s", s->about);
}

static int list_imported(struct cli *c, struct table *t, json_t *list)
{
    struct conn *conn;
    json_t *doc, *v;
    size_t i;
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = conn_query(conn, &doc, c->e, "spaces")) < 0)
        return rc;
    json_array_foreach(json_object_get(doc, "spaces"), i, v) {
        struct space *s = NULL;
        char *text;
        size_t len;
        if (rc < 0 || (rc = fetch(conn, doc_str(v, "hash"), &text, &len, c->e)) < 0)
            break;
        rc = space_file_parse(text, len, doc_str(v, "name"), &s, c->e);
        free(text);
        if (rc == 0)
            list_space(s, doc_str(v, "name"), t, list);
        space_file_free(s);
    }
    json_decref(doc);
    return rc;
}

int verb_space_list(struct cli *c)
{
    static const struct table_col cols[] = { { "SPACE", false, false }, { "POINTS", true, false }, { "CONTENT", false, false }, { "ABOUT", false, true } };
    struct table t;
    json_t *list = json_array();
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    for (int i = 0; space_at(i); i++)
        list_space(space_at(i), space_at(i)->name, &t, list);
    int rc = list_imported(c, &t, list);
    if (rc == -ERR_UNREACHABLE) { /* the built-in ones are here without one */
        fprintf(stderr, "no imported spaces are listed: %s\n", c->e->text);
        rc = 0;
    }
    json_t *doc = json_pack("{s:o}", "spaces", list);
    if (rc == 0 && c->json)
        print_json(stdout, doc);
    else if (rc == 0)
        table_print(&t, stdout, print_width(stdout));
    table_fini(&t);
    json_decref(doc);
    return rc;
}

/* ---- show ---- */

/* What the flags say networks are built for. */
static int frame_from(struct cli *c, struct arch_frame *f)
{
    const char *input = cli_str(c, "input", "1,28,28");
    int64_t classes = 10, channels = 0, cells = 0, down = 0;
    int used = 0, rc;
    if ((rc = cli_int(c, "classes", 2, 65536, &classes)) < 0 || (rc = cli_int(c, "channels", 0, PROXY_MAX_CHANNELS, &channels)) < 0 ||
        (rc = cli_int(c, "cells", 0, PROXY_MAX_CELLS, &cells)) < 0 || (rc = cli_int(c, "downsample", 0, PROXY_MAX_DOWNSAMPLE, &down)) < 0)
        return rc;
    if (sscanf(input, "%d,%d,%d%n", &f->c, &f->h, &f->w, &used) != 3 || input[used])
        return err_set(c->e, ERR_USAGE, "--input is channels,height,width such as 1,28,28, not '%s'", input);
    f->n_classes = (int)classes;
    f->proxy = (struct proxy){ (int)channels, (int)cells, (int)down };
    return 0;
}

static int build(const struct space *s, const char *text, const struct arch_frame *f, struct net *n, struct errbuf *e)
{
    int rc = space_build(s, text, f->c, f->h, f->w, f->n_classes, &f->proxy, n, e);
    return rc < 0 ? err_wrap(e, rc, "%s", text) : 0;
}

static bool listed(const json_t *list, const char *arch)
{
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v)
        if (strcmp(doc_str(v, "arch"), arch) == 0)
            return true;
    return false;
}

/* repeats: one that is listed will do; else, where no other is found, the list stays as it is. */
static int sample(const struct space *s, struct rng *r, const struct arch_frame *f, bool repeats, struct table *t, json_t *list, struct errbuf *e)
{
    char text[ARCH_TEXT_MAX];
    short_str a, b;
    struct net n;
    int rc = -ERR_SHAPE;
    for (int i = 0; i < SAMPLE_DRAWS && rc == -ERR_SHAPE; i++) { /* a space from a file may have some that do not fit such images */
        s->random(s, r, text);
        if (repeats || !listed(list, text))
            rc = build(s, text, f, &n, e);
    }
    if (rc == -ERR_SHAPE && json_array_size(list))
        return 0;
    if (rc < 0)
        return rc;
    table_cell(t, "%s", fmt_count(a, (double)n.param_count));
    table_cell(t, "%s", fmt_count(b, (double)net_macs(&n)));
    table_cell(t, "%s", text);
    json_array_append_new(list, json_pack("{s:s,s:I,s:I}", "arch", text, "params", (json_int_t)n.param_count, "macs",
                                          (json_int_t)net_macs(&n)));
    net_fini(&n);
    return 0;
}

/* The architecture of --arch, or the first sample, into the document: arch, arch_hash, blocks, edges. */
static int draw(struct cli *c, const struct space *s, const struct arch_frame *f, json_t *doc)
{
    const char *arch = cli_str(c, "arch", NULL);
    char text[ARCH_TEXT_MAX], hash[ARCH_HASH_LEN + 1];
    struct net n;
    int rc = s->canon(s, arch ? arch : doc_str(json_array_get(doc_get(doc, "samples"), 0), "arch"), text, c->e);
    if (rc < 0)
        return err_wrap(c->e, rc, "--arch");
    if ((rc = build(s, text, f, &n, c->e)) < 0)
        return rc;
    arch_hash(s->name, text, hash);
    json_object_set_new(doc, "arch", json_string(text));
    json_object_set_new(doc, "arch_hash", json_string(hash));
    json_object_set_new(doc, "blocks", blocks_json(&n));
    json_object_set_new(doc, "edges", blocks_edges(s, text));
    net_fini(&n);
    return 0;
}

static int show_space(struct cli *c, const struct space *s)
{
    static const struct table_col cols[] = { { "PARAMS", true, false }, { "MACS", true, false }, { "ARCHITECTURE", false, false } };
    int64_t seed = 1, samples = 3;
    struct arch_frame f;
    int rc;
    if ((rc = cli_int(c, "seed", 0, INT64_MAX, &seed)) < 0 || (rc = cli_int(c, "samples", 1, 1000, &samples)) < 0 ||
        (rc = frame_from(c, &f)) < 0)
        return rc;
    struct rng r;
    struct table t;
    json_t *list = json_array();
    rng_init(&r, (uint64_t)seed, RNG_SAMPLE, 0);
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    for (int64_t i = 0; i < samples && rc == 0; i++)
        rc = sample(s, &r, &f, cli_has(c, "samples"), &t, list, c->e);
    json_t *doc = json_pack("{s:s,s:s,s:f,s:s?,s:o}", "name", s->name, "about", s->about, "size", s->size, "hash", s->hash, "samples", list);
    if (rc == 0)
        rc = draw(c, s, &f, doc);
    if (rc == 0 && c->json) {
        print_json(stdout, doc);
    } else if (rc == 0) {
        const size_t n = json_array_size(list);
        printf("%s: %s\n%.*g point%s; %zu drawn at random%s, for images [%d,%d,%d] and %d classes:\n", s->name, s->about, s->size < 1e6 ? 6 : 4,
               s->size, s->size == 1 ? "" : "s", n, (double)n > s->size ? ", with repeats" : "", f.c, f.h, f.w, f.n_classes);
        table_print(&t, stdout, 0);
        printf("\n%s\n", doc_str(doc, "arch"));
        blocks_print(stdout, doc_get(doc, "blocks"), doc_get(doc, "edges"));
    }
    table_fini(&t);
    json_decref(doc);
    return rc;
}

int verb_space_show(struct cli *c)
{
    const struct space *s;
    int rc = space_named(c, c->arg[0], &s);
    return rc < 0 ? rc : show_space(c, s);
}
