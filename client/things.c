/* things.c - named, content-addressed things: datasets and curricula, imported, listed, shown. */
#include "client/verbs.h"

#include "common/curriculum.h"
#include "common/dataset.h"
#include "common/fsio.h"
#include "common/net.h"

#include <endian.h>
#include <errno.h>
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

int thing_upload(struct conn *conn, const char *path, const char *hash, const char *kind, const char *name, struct errbuf *e)
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
        rc = thing_upload(conn, path, hash, "dataset", name, e);
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
    return thing_upload(conn, file, hash, "curriculum", name, e);
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

int thing_find(struct conn *conn, const char *list, const char *name_or_hash, name_str name, hash_str hash, struct errbuf *e)
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
    return rc < 0 ? err_set(e, ERR_NOTFOUND, "there is no %s '%s'", strcmp(list, "curricula") == 0 ? "curriculum" :
                            strcmp(list, "spaces") == 0 ? "imported space" : "dataset", name_or_hash)
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
    int rc = thing_find(conn, "datasets", name_or_hash, out->name, out->hash, e);
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

/* ---- a whole curriculum; export ---- */

static int fetch_curriculum(struct conn *conn, const char *name_or_hash, name_str name, struct curriculum *out, struct errbuf *e)
{
    char dir[512], path[600];
    hash_str hash;
    int rc = thing_find(conn, "curricula", name_or_hash, name, hash, e);
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

static bool is_curriculum_path(const char *text)
{
    static const char ending[] = ".safetensors";
    size_t n = strlen(text), m = sizeof ending - 1;
    return strchr(text, '/') || (n > m && strcmp(text + n - m, ending) == 0);
}

int curriculum_named(struct cli *c, const char *name_or_file, name_str name, struct curriculum *out)
{
    struct conn *conn;
    if (is_curriculum_path(name_or_file)) {
        name_from_path(name_or_file, name);
        return curriculum_load(out, name_or_file, c->e);
    }
    int rc = cli_conn(c, &conn);
    return rc < 0 ? rc : fetch_curriculum(conn, name_or_file, name, out, c->e);
}

/* A named blob as a file. */
int thing_export(struct cli *c, const char *list, const char *ending)
{
    struct conn *conn;
    name_str name;
    hash_str hash;
    char path[FS_PATH_MAX];
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = thing_find(conn, list, c->arg[0], name, hash, c->e)) < 0)
        return rc;
    snprintf(path, sizeof path, "%s%s", cli_str(c, "output", name), cli_has(c, "output") ? "" : ending);
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

int verb_curriculum_export(struct cli *c) { return thing_export(c, "curricula", ".safetensors"); }
int verb_dataset_export(struct cli *c) { return thing_export(c, "datasets", ".safetensors"); }
