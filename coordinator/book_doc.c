/* book_doc.c - the score book for people and other sites: the document `book`, and the check of what comes in. */
#include "coordinator/docs_int.h"

#include "common/blob.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ---- out ---- */

struct page { json_t *rows; char next[BOOK_KEY_LEN + 1]; };

static json_t *line(void (*write)(FILE *f, const struct book_row *b), const struct book_row *b)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    json_t *v = NULL;
    if (f) {
        write(f, b);
        if (fclose(f) == 0 && n)
            v = json_stringn(text, n - 1); /* without its line break */
    }
    free(text);
    return v;
}

static void write_columns(FILE *f, const struct book_row *b)
{
    (void)b;
    book_write_header(f, BOOK_SECONDS);
}

static void write_row(FILE *f, const struct book_row *b) { book_write_row(f, b, BOOK_SECONDS); }

static bool on_row(void *arg, const char *key, const struct book_row *b)
{
    struct page *p = arg;
    snprintf(p->next, sizeof p->next, "%s", key);
    return json_array_append_new(p->rows, line(write_row, b)) == 0;
}

int doc_book(struct coord *c, const struct query *q, json_t **out, struct errbuf *e)
{
    struct page p = { .rows = json_array() };
    uint64_t total = 0;
    int rc = reader_book_count(c->reader, &total);
    int n = rc < 0 ? rc : reader_book_rows(c->reader, q->after, q->limit, on_row, &p);
    if (n < 0 || json_array_size(p.rows) != (size_t)n) {
        json_decref(p.rows);
        return err_set(e, n == -ERR_IO ? ERR_IO : ERR_NOMEM, "the score book cannot be read");
    }
    *out = json_pack("{s:I,s:o,s:o,s:o}", "total", (json_int_t)total, "columns", line(write_columns, NULL), "rows", p.rows, "next",
                     n == q->limit ? doc_text(p.next) : json_null());
    return *out ? 0 : err_set(e, ERR_NOMEM, "score book");
}

/* ---- in ---- */

/* The image shape of the dataset that the last row named: a book has few. */
struct known_shape { hash_str dataset; bool here; struct image_shape img; };

/* A row of a dataset that is here says how large its network is, and so do we. */
static int check_size(struct coord *c, const struct space *space, const struct book_row *b, const struct proxy *proxy, struct known_shape *k, struct errbuf *e)
{
    static const struct constraints none;
    uint64_t params, macs;
    if (strcmp(k->dataset, b->dataset) != 0) {
        memcpy(k->dataset, b->dataset, sizeof k->dataset);
        k->here = coord_image_shape(c, k->dataset, &k->img, NULL) == 0;
    }
    if (!k->here)
        return 0;
    int rc = search_fits(space, b->arch, &k->img, proxy, &none, &params, &macs, e);
    if (rc < 0)
        return err_wrap(e, rc, "arch");
    if (params != b->r.params || macs != b->r.macs)
        return err_set(e, ERR_INPUT, "%s: %llu, but this network has %llu", params == b->r.params ? "macs" : "params",
                       (unsigned long long)(params == b->r.params ? b->r.macs : b->r.params), (unsigned long long)(params == b->r.params ? macs : params));
    return 0;
}

/* Beside what reading checks: a row must be one that this coordinator could have written. */
static int check_row(struct coord *c, const struct book_row *b, struct known_shape *k, struct errbuf *e)
{
    struct fidelity f;
    const struct space *space = spaces_find(c, b->space);
    char text[ARCH_TEXT_MAX], hash[ARCH_HASH_LEN + 1];
    if (!space)
        return err_set(e, ERR_INPUT, "space: there is no search space \"%.63s\" here%s", b->space, strchr(b->space, '@') ?
                       "; didact space export it on the other side, and import the file here" : "");
    int rc = space->canon(space, b->arch, text, e);
    if (rc < 0)
        return err_wrap(e, rc, "arch");
    arch_hash(space->name, text, hash);
    if (strcmp(text, b->arch) != 0 || strcmp(hash, b->arch_hash) != 0)
        return err_set(e, ERR_INPUT, "arch_hash: %.40s is not that of %.200s", b->arch_hash, b->arch);
    if (!blob_valid_hash(b->dataset) || !blob_valid_hash(b->curriculum))
        return err_set(e, ERR_INPUT, "%s: \"%.64s\" is no hash", blob_valid_hash(b->dataset) ? "curriculum" : "dataset",
                       blob_valid_hash(b->dataset) ? b->curriculum : b->dataset);
    rc = book_check(b, &f, e);
    return rc < 0 ? rc : check_size(c, space, b, &f.proxy, k, e);
}

int book_parse(struct coord *coord, char *csv, uint64_t first, bool check, struct book_row **out, size_t *n, struct errbuf *e)
{
    struct book_columns c;
    struct known_shape shape = { 0 };
    char *next = strchr(csv, '\n');
    size_t rows = 0;
    int rc;
    *out = NULL;
    *n = 0;
    if (next)
        *next++ = 0;
    if ((rc = book_read_header(csv, &c, e)) < 0)
        return rc;
    for (char *p = next; p && *p; p = (p = strchr(p, '\n')) ? p + 1 : NULL)
        rows++;
    struct book_row *b = calloc(rows ? rows : 1, sizeof *b);
    if (!b)
        return err_set(e, ERR_NOMEM, "%zu rows", rows);
    for (char *p = next; rc == 0 && p && *p; p = next) {
        if ((next = strchr(p, '\n')))
            *next++ = 0;
        size_t len = strlen(p);
        if (len && p[len - 1] == '\r')
            p[len - 1] = 0;
        if ((rc = book_read_row(&c, p, &b[*n], e)) == 0 && check)
            rc = check_row(coord, &b[*n], &shape, e);
        if (rc < 0)
            err_wrap(e, rc, "row %llu", (unsigned long long)(first + *n));
        ++*n;
    }
    if (rc < 0) {
        free(b);
        return rc;
    }
    *out = b;
    return 0;
}
