/* things.c - named, content-addressed things: datasets and curricula, imported, listed, shown; and search spaces. */
#include "client/blocks.h"
#include "client/verbs.h"

#include "common/curriculum.h"
#include "common/dataset.h"
#include "common/fsio.h"
#include "common/net.h"
#include "common/rng.h"
#include "common/space.h"
#include "common/space_file.h"

#include <endian.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- upload with progress ---- */

struct upload {
    const char *what;
    bool        shown;
};

static void on_upload(void *arg, uint64_t done, uint64_t total)
{
    struct upload *u = arg;
    short_str a, b;
    if (!isatty(STDERR_FILENO))
        return;
    u->shown = true;
    fprintf(stderr, "\r%s: %s of %s\033[K", u->what, fmt_bytes(a, (double)done), fmt_bytes(b, (double)total));
}

static int upload(struct conn *conn, const char *path, const char *hash, const char *kind, const char *name, struct errbuf *e)
{
    struct upload u = { .what = name };
    int rc = conn_put_file(conn, path, hash, kind, name, on_upload, &u, e);
    if (u.shown)
        fprintf(stderr, "\r\033[K");
    return rc;
}

/* A name for what people import without one: the last part of the path, without its extension. */
static void name_from_path(const char *path, name_str out)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    size_t start = n;
    while (start > 0 && path[start - 1] != '/')
        start--;
    snprintf(out, sizeof(name_str), "%.*s", (int)(n - start < NAME_MAX_LEN ? n - start : NAME_MAX_LEN), path + start);
    char *dot = strrchr(out, '.');
    if (dot && dot != out && strcmp(dot, ".safetensors") == 0)
        *dot = 0;
}

static int temp_path(char *out, size_t cap, struct errbuf *e)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(out, cap, "%s/didact-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    return mkdtemp(out) ? 0 : fs_error(e, errno, "cannot make a folder", out);
}

int dataset_push(struct conn *conn, const char *source, const char *name, hash_str hash, struct errbuf *e)
{
    char dir[512], path[600];
    int rc = temp_path(dir, sizeof dir, e);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "%s/dataset.safetensors", dir);
    rc = dataset_import(source, path, hash, e);
    if (rc == 0)
        rc = upload(conn, path, hash, "dataset", name, e);
    unlink(path);
    rmdir(dir);
    return rc;
}

int curriculum_push(struct conn *conn, const char *file, const char *name, hash_str hash, struct errbuf *e)
{
    struct curriculum cur = { 0 };
    int rc = curriculum_load(&cur, file, e); /* what is not a curriculum is refused here, with its place */
    if (rc < 0)
        return rc;
    snprintf(hash, sizeof(hash_str), "%s", cur.hash);
    curriculum_fini(&cur);
    return upload(conn, file, hash, "curriculum", name, e);
}

static int import_verb(struct cli *c, const char *kind, int (*push)(struct conn *, const char *, const char *, hash_str, struct errbuf *))
{
    struct conn *conn;
    name_str name;
    hash_str hash = "";
    const char *given = cli_str(c, "name", c->n_args > 1 ? c->arg[1] : NULL);
    name_from_path(c->arg[0], name);
    if (given && strlen(given) > NAME_MAX_LEN)
        return err_set(c->e, ERR_USAGE, "the name is longer than %d characters", NAME_MAX_LEN);
    if (given)
        snprintf(name, sizeof name, "%s", given);
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = push(conn, c->arg[0], name, hash, c->e)) < 0)
        return rc;
    if (c->json) {
        json_t *doc = json_pack("{s:s,s:s,s:s}", "kind", kind, "name", name, "hash", hash);
        print_json(stdout, doc);
        json_decref(doc);
    } else {
        printf("%s %s  %s\n", kind, name, hash);
    }
    return 0;
}

int verb_dataset_import(struct cli *c)    { return import_verb(c, "dataset", dataset_push); }
int verb_curriculum_import(struct cli *c) { return import_verb(c, "curriculum", curriculum_push); }

/* ---- lists ---- */

static int list_verb(struct cli *c, const char *path)
{
    static const struct table_col cols[] = { { "NAME", false, false }, { "SIZE", true, false }, { "ADDED", false, false },
        { "HASH", false, true } };
    struct conn *conn;
    json_t *doc, *v;
    size_t i;
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = conn_query(conn, &doc, c->e, "%s", path)) < 0)
        return rc;
    if (c->json) {
        print_json(stdout, doc);
    } else if (json_array_size(json_object_get(doc, path)) == 0) {
        printf("no %s yet\n", path);
    } else {
        struct table t;
        table_init(&t, sizeof cols / sizeof cols[0], cols);
        json_array_foreach(json_object_get(doc, path), i, v) {
            short_str s;
            table_cell(&t, "%s", doc_str(v, "name"));
            table_cell(&t, "%s", fmt_bytes(s, doc_num(v, "bytes")));
            table_cell(&t, "%s", fmt_time(s, doc_num(v, "added_ms")));
            table_cell(&t, "%s", doc_str(v, "hash"));
        }
        table_print(&t, stdout, print_width(stdout));
        table_fini(&t);
    }
    json_decref(doc);
    return 0;
}

int verb_dataset_list(struct cli *c)    { return list_verb(c, "datasets"); }
int verb_curriculum_list(struct cli *c) { return list_verb(c, "curricula"); }

/* ---- one thing by name or hash ---- */

static int resolve(struct conn *conn, const char *list, const char *name_or_hash, name_str name, hash_str hash, struct errbuf *e)
{
    json_t *doc, *v;
    size_t i, len = strlen(name_or_hash);
    int rc = conn_query(conn, &doc, e, "%s", list);
    if (rc < 0)
        return rc;
    rc = -ERR_NOTFOUND;
    json_array_foreach(json_object_get(doc, list), i, v) {
        const char *n = doc_str(v, "name"), *h = doc_str(v, "hash");
        if (strcmp(n, name_or_hash) != 0 && !(len >= 6 && strncmp(h, name_or_hash, len) == 0))
            continue;
        snprintf(name, sizeof(name_str), "%s", n);
        snprintf(hash, sizeof(hash_str), "%s", h);
        rc = 0;
        break;
    }
    json_decref(doc);
    if (rc < 0 && blob_valid_hash(name_or_hash)) { /* its name may mean something else by now; the content is kept */
        snprintf(name, sizeof(name_str), "%.12s", name_or_hash);
        snprintf(hash, sizeof(hash_str), "%s", name_or_hash);
        return 0;
    }
    return rc < 0 ? err_set(e, ERR_NOTFOUND, "there is no %s '%s'", strcmp(list, "curricula") == 0 ? "curriculum" : "dataset",
                            name_or_hash)
                  : 0;
}

/* The JSON header of a safetensors file from its first bytes. */
static int parse_head(const uint8_t *head, size_t len, json_t **out, struct errbuf *e)
{
    uint64_t n = 0;
    json_error_t je;
    if (len >= sizeof n)
        memcpy(&n, head, sizeof n);
    n = le64toh(n);
    if (len < sizeof n || n > len - sizeof n)
        return err_set(e, ERR_CORRUPT, "its header is not within the first %zu bytes", len);
    *out = json_loadb((const char *)head + sizeof n, (size_t)n, 0, &je);
    return *out ? 0 : err_set(e, ERR_CORRUPT, "its header is not JSON: %s", je.text);
}

static uint64_t dim(const json_t *head, const char *tensor, size_t i)
{
    json_int_t v = json_integer_value(json_array_get(json_object_get(json_object_get(head, tensor), "shape"), i));
    return v > 0 ? (uint64_t)v : 0;
}

int dataset_facts(struct conn *conn, const char *name_or_hash, struct dataset_facts *out, struct errbuf *e)
{
    uint8_t *bytes = NULL;
    size_t len = 0;
    json_t  *head = NULL;
    *out = (struct dataset_facts){ 0 };
    int rc = resolve(conn, "datasets", name_or_hash, out->name, out->hash, e);
    if (rc < 0 || (rc = conn_get_head(conn, out->hash, &bytes, &len, &out->bytes, e)) < 0)
        return rc;
    rc = parse_head(bytes, len, &head, e);
    free(bytes);
    if (rc < 0)
        return err_wrap(e, rc, "dataset %s", name_or_hash);
    out->train = dim(head, "train.images", 0);
    out->test = dim(head, "test.images", 0);
    uint64_t c = dim(head, "train.images", 1), h = dim(head, "train.images", 2), w = dim(head, "train.images", 3);
    const char *classes = json_string_value(json_object_get(json_object_get(head, "__metadata__"), "classes"));
    out->n_classes = classes ? atoi(classes) : 0;
    if (!out->train || !c || c > NET_MAX_DIM || !h || h > NET_MAX_DIM || !w || w > NET_MAX_DIM || out->n_classes < 2)
        rc = err_set(e, ERR_CORRUPT, "dataset %s: its header does not describe images with classes", name_or_hash);
    out->c = (int)c, out->h = (int)h, out->w = (int)w;
    json_decref(head);
    return rc;
}

int verb_dataset_show(struct cli *c)
{
    struct conn *conn;
    struct dataset_facts d;
    short_str s;
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = dataset_facts(conn, c->arg[0], &d, c->e)) < 0)
        return rc;
    if (c->json) {
        json_t *doc = json_pack("{s:s,s:s,s:I,s:[iii],s:i,s:I,s:I}", "name", d.name, "hash", d.hash, "bytes", (json_int_t)d.bytes,
                                "image", d.c, d.h, d.w, "classes", d.n_classes, "train_images", (json_int_t)d.train, "test_images",
                                (json_int_t)d.test);
        print_json(stdout, doc);
        json_decref(doc);
        return 0;
    }
    uint64_t valid = d.train / 10 < 5000 ? d.train / 10 : 5000;
    printf("dataset      %s\nhash         %s\nsize         %s\nimages       %d x %d x %d (channels, height, width)\nclasses      %d\n",
           d.name, d.hash, fmt_bytes(s, (double)d.bytes), d.c, d.h, d.w, d.n_classes);
    if (d.test)
        printf("splits       %llu train, %llu validation, %llu test\n", (unsigned long long)(d.train - valid),
               (unsigned long long)valid, (unsigned long long)d.test);
    else
        printf("images       %llu, no test set of its own (a tenth is set aside)\n", (unsigned long long)d.train);
    return 0;
}

/* ---- curriculum show, export ---- */

static int fetch_curriculum(struct conn *conn, const char *name_or_hash, name_str name, struct curriculum *out, struct errbuf *e)
{
    char dir[512], path[600];
    hash_str hash;
    int rc = resolve(conn, "curricula", name_or_hash, name, hash, e);
    if (rc < 0 || (rc = temp_path(dir, sizeof dir, e)) < 0)
        return rc;
    snprintf(path, sizeof path, "%s/curriculum.safetensors", dir);
    rc = conn_get_file(conn, hash, path, e);
    if (rc == 0)
        rc = curriculum_load(out, path, e);
    unlink(path);
    rmdir(dir);
    return rc;
}

static json_t *floats(const float *v, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_real((double)v[i]));
    return list;
}

static void show_curriculum(const char *name, const struct curriculum *u)
{
    printf("curriculum   %s\nhash         %s\nbatches      %d of %d images, %d x %d x %d, %d classes\ninner        %s\n", name, u->hash,
           u->T, u->B, u->c, u->h, u->w, u->K, inner_name(u->inner.type));
    printf("lr           ");
    for (int i = 0; i < u->T; i++)
        printf("%s%.4g", i ? " " : "", (double)u->lr[i]);
    printf("\nmomentum     ");
    for (int i = 0; i < u->T; i++)
        printf("%s%.3g", i ? " " : "", (double)u->mu[i]);
    printf("\nprovenance   %s\n", u->provenance[0] ? u->provenance : "-");
}

int verb_curriculum_show(struct cli *c)
{
    struct conn *conn;
    struct curriculum u = { 0 };
    name_str name;
    json_error_t je;
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = fetch_curriculum(conn, c->arg[0], name, &u, c->e)) < 0)
        return rc;
    if (c->json) {
        json_t *prov = json_loads(u.provenance, 0, &je);
        json_t *doc = json_pack("{s:s,s:s,s:i,s:i,s:[iii],s:i,s:o,s:o,s:o,s:o}", "name", name, "hash", u.hash, "steps", u.T, "batch",
                                u.B, "image", u.c, u.h, u.w, "classes", u.K, "inner", inner_to_json(&u.inner), "lr", floats(u.lr, u.T),
                                "momentum", floats(u.mu, u.T), "provenance", prov ? prov : json_null());
        print_json(stdout, doc);
        json_decref(doc);
    } else {
        show_curriculum(name, &u);
    }
    curriculum_fini(&u);
    return 0;
}

/* A named blob as a file. */
static int export_file(struct cli *c, const char *list)
{
    struct conn *conn;
    name_str name;
    hash_str hash;
    char path[FS_PATH_MAX];
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = resolve(conn, list, c->arg[0], name, hash, c->e)) < 0)
        return rc;
    snprintf(path, sizeof path, "%s%s", cli_str(c, "output", name), cli_has(c, "output") ? "" : ".safetensors");
    if ((rc = conn_get_file(conn, hash, path, c->e)) < 0)
        return rc;
    if (c->json) {
        json_t *doc = json_pack("{s:s,s:s,s:s}", "name", name, "hash", hash, "file", path);
        print_json(stdout, doc);
        json_decref(doc);
    } else {
        printf("%s\n", path);
    }
    return 0;
}

int verb_curriculum_export(struct cli *c) { return export_file(c, "curricula"); }
int verb_dataset_export(struct cli *c) { return export_file(c, "datasets"); }

/* ---- spaces: built in, so no coordinator is asked ---- */

int verb_space_list(struct cli *c)
{
    static const struct table_col cols[] = { { "SPACE", false, false }, { "POINTS", true, false }, { "ABOUT", false, true } };
    struct table t;
    json_t *list = json_array();
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    for (int i = 0; space_at(i); i++) {
        const struct space *s = space_at(i);
        json_array_append_new(list, json_pack("{s:s,s:s,s:f}", "name", s->name, "about", s->about, "size", s->size));
        table_cell(&t, "%s", s->name);
        s->size < 1e6 ? table_cell(&t, "%.0f", s->size) : table_cell(&t, "%.1e", s->size);
        table_cell(&t, "%s", s->about);
    }
    json_t *doc = json_pack("{s:o}", "spaces", list);
    if (c->json)
        print_json(stdout, doc);
    else
        table_print(&t, stdout, print_width(stdout));
    table_fini(&t);
    json_decref(doc);
    return 0;
}

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

static int sample(const struct space *s, struct rng *r, const struct arch_frame *f, struct table *t, json_t *list, struct errbuf *e)
{
    char text[ARCH_TEXT_MAX];
    short_str a, b;
    struct net n;
    s->random(s, r, text);
    int rc = build(s, text, f, &n, e);
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

int find_space(const char *name, const struct space **out, struct space **owned, struct errbuf *e)
{
    char  *text = NULL;
    size_t len = 0;
    *owned = NULL;
    if ((*out = space_find(name)))
        return 0;
    if (!strchr(name, '/') && !strchr(name, '.'))
        return err_set(e, ERR_NOTFOUND, "there is no space '%s'; didact space list names them, and a file's name has a '.' or '/'", name);
    int rc = fs_read_all(name, SPACE_FILE_MAX, &text, &len, e);
    if (rc == 0)
        rc = space_file_parse(text, len, name, owned, e);
    free(text);
    *out = *owned;
    return rc;
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
        rc = sample(s, &r, &f, &t, list, c->e);
    json_t *doc = json_pack("{s:s,s:s,s:f,s:o}", "name", s->name, "about", s->about, "size", s->size, "samples", list);
    if (rc == 0)
        rc = draw(c, s, &f, doc);
    if (rc == 0 && c->json) {
        print_json(stdout, doc);
    } else if (rc == 0) {
        printf("%s: %s\n%.*g points; %lld drawn at random, for images [%d,%d,%d] and %d classes:\n", s->name, s->about,
               s->size < 1e6 ? 6 : 4, s->size, (long long)samples, f.c, f.h, f.w, f.n_classes);
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
    struct space *owned;
    int rc = find_space(c->arg[0], &s, &owned, c->e);
    if (rc == 0)
        rc = show_space(c, s);
    space_file_free(owned);
    return rc;
}
