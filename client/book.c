/* book.c - the score book as a file: out page by page, in by parts. An import first has every part looked at, then adds them: a row that is
 * not valid, or that contradicts the book, leaves it as it was. (Of two rows of one file that contradict each other, in different parts, the
 * first stays: the parts are added one after another.) What is removed is named by key, so a row that is wrong can go. */
#include "client/verbs.h"

#include "common/fsio.h"

#include <stdlib.h>
#include <string.h>

#define MAX_FILE (1u << 30)
#define PAGE     400

static int write_pages(struct conn *conn, FILE *f, uint64_t *rows, struct errbuf *e)
{
    char after[64] = "";
    for (*rows = 0;;) {
        json_t *doc, *row;
        size_t i;
        int rc = conn_query(conn, &doc, e, "book?limit=%d%s%s", PAGE, *after ? "&after=" : "", after);
        if (rc < 0)
            return rc;
        if (!*after)
            fprintf(f, "%s\n", doc_str(doc, "columns"));
        json_array_foreach(json_object_get(doc, "rows"), i, row)
            fprintf(f, "%s\n", json_string_value(row));
        *rows += json_array_size(json_object_get(doc, "rows"));
        snprintf(after, sizeof after, "%s", doc_str(doc, "next"));
        json_decref(doc);
        if (!*after)
            return 0;
    }
}

int verb_book_export(struct cli *c)
{
    struct conn *conn;
    char  *text = NULL;
    size_t len = 0;
    uint64_t rows = 0;
    int rc = cli_conn(c, &conn);
    FILE *f = rc == 0 ? open_memstream(&text, &len) : NULL; /* a file is complete or it is not there */
    if (rc < 0)
        return rc;
    if (!f)
        return err_set(c->e, ERR_NOMEM, "out of memory");
    rc = write_pages(conn, f, &rows, c->e);
    if (fclose(f) != 0 && rc == 0)
        rc = err_set(c->e, ERR_NOMEM, "out of memory");
    if (rc == 0 && strcmp(c->arg[0], "-") == 0)
        fwrite(text, 1, len, stdout);
    else if (rc == 0 && (rc = fs_write_atomic(c->arg[0], text, len, c->e)) == 0) {
        if (c->json)
            printf("{\"file\": \"%s\", \"rows\": %llu}\n", c->arg[0], (unsigned long long)rows);
        else
            printf("%llu rows in %s\n", (unsigned long long)rows, c->arg[0]);
    }
    free(text);
    return rc;
}

enum what { CHECK, ADD, REMOVE };

/* One part: the line of columns, and whole rows of `body` as far as a message has room. */
static int send_part(struct conn *conn, const char *columns, size_t n_columns, const char *body, size_t n, uint64_t first, enum what what,
                     uint64_t *changed, struct errbuf *e)
{
    struct wire_msg ans, req = { .kind = WIRE_BOOK_ADD, .book_add = { .first_row = first, .check_only = what == CHECK, .remove = what == REMOVE } };
    json_t *doc = NULL;
    if (!(req.book_add.csv = malloc(n_columns + n + 1)))
        return err_set(e, ERR_NOMEM, "out of memory");
    memcpy(req.book_add.csv, columns, n_columns);
    memcpy(req.book_add.csv + n_columns, body, n);
    req.book_add.csv[n_columns + n] = 0;
    int rc = conn_ask(conn, &req, WIRE_REPLY, true, &ans, e); /* twice is once */
    free(req.book_add.csv);
    if (rc < 0 || (rc = conn_reply(&ans, &doc, e)) < 0)
        return rc;
    *changed += (uint64_t)doc_num(doc, what == REMOVE ? "removed" : "new");
    json_decref(doc);
    return 0;
}

static int send_all(struct conn *conn, const char *text, enum what what, uint64_t *rows, uint64_t *changed, struct errbuf *e)
{
    const size_t n_columns = strcspn(text, "\n") + 1, room = WIRE_MAX_CSV - n_columns - 1;
    const char *at = text + n_columns;
    *rows = *changed = 0;
    while (*at) {
        size_t n = 0, lines = 0;
        for (size_t next; at[n] && n + (next = strcspn(at + n, "\n") + 1) <= room; n += next) {
            lines++;
            if (!at[n + next - 1]) { /* the last row lacks its line break */
                n += next - 1;
                break;
            }
        }
        if (n == 0)
            return err_set(e, ERR_INPUT, "row %llu is longer than %zu bytes", (unsigned long long)*rows + 1, room);
        int rc = send_part(conn, text, n_columns, at, n, *rows + 1, what, changed, e);
        if (rc < 0)
            return rc;
        at += n;
        *rows += lines;
    }
    return 0;
}

/* The file's rows in, or the rows of its keys out. */
static int give(struct cli *c, enum what what, uint64_t *rows, uint64_t *changed)
{
    struct conn *conn;
    char  *text = NULL;
    size_t len = 0;
    int rc = fs_read_all(c->arg[0], MAX_FILE, &text, &len, c->e);
    if (rc == 0 && (strlen(text) != len || !strchr(text, '\n') || strcspn(text, "\n") > WIRE_MAX_CSV / 2))
        rc = err_set(c->e, ERR_INPUT, "%s is no table of scores", c->arg[0]);
    if (rc == 0)
        rc = cli_conn(c, &conn);
    if (rc == 0 && what == ADD)
        rc = send_all(conn, text, CHECK, rows, changed, c->e);
    if (rc == 0)
        rc = send_all(conn, text, what, rows, changed, c->e);
    free(text);
    return rc < 0 ? err_wrap(c->e, rc, "%s", c->arg[0]) : 0;
}

int verb_book_import(struct cli *c)
{
    uint64_t rows, added;
    int rc = give(c, ADD, &rows, &added);
    if (rc == 0 && c->json)
        printf("{\"rows\": %llu, \"new\": %llu}\n", (unsigned long long)rows, (unsigned long long)added);
    else if (rc == 0)
        printf("%llu rows: %llu new, %llu known before\n", (unsigned long long)rows, (unsigned long long)added, (unsigned long long)(rows - added));
    return rc;
}

int verb_book_remove(struct cli *c)
{
    uint64_t rows, removed;
    int rc = give(c, REMOVE, &rows, &removed);
    if (rc == 0)
        printf(c->json ? "{\"rows\": %llu, \"removed\": %llu}\n" : "%llu rows: %llu of them were in the book and are removed\n", (unsigned long long)rows, (unsigned long long)removed);
    return rc;
}
