/* conn.h - one DEALER to the coordinator: ask, wait for the answer with the same number, time out, connect anew.
 * Thread: one. Between two asks nothing is expected; late answers of earlier ones are dropped. */
#ifndef DIDACT_CLIENT_CONN_H
#define DIDACT_CLIENT_CONN_H

#include "common/blob.h"
#include "common/err.h"
#include "common/job.h"
#include "common/wire.h"

#include <jansson.h>

#define CONN_TIMEOUT_S 10.0

struct conn;

struct conn_cfg { /* all borrowed; NULL: not given */
    const char *endpoint;               /* --connect */
    const char *dir;                    /* --dir: a local folder with endpoints.json */
    const char *key_file, *server_key;  /* CURVE: NAME.key of ours, server.pub of theirs */
    bool        insecure;               /* --insecure: another machine without keys */
    int         timeout_ms;
};

/* Where the coordinator is, in order: endpoint, dir, DIDACT_CONNECT, the default local folder. DIDACT_KEY and DIDACT_SERVER_KEY
 * stand in for the key files. -ERR_UNREACHABLE says what was looked for and how to start one. */
int  conn_open(const struct conn_cfg *cfg, struct conn **out, struct errbuf *e);
void conn_close(struct conn *c); /* NULL is fine */
const char *conn_endpoint(const struct conn *c);
void conn_on_note(struct conn *c, void (*fn)(const char *text)); /* what a successful answer says beside its document, once */
void conn_patience(struct conn *c, double seconds); /* wait at least so long for answers: of requests that take a while */

/* The default local folder: $DIDACT_HOME, $XDG_DATA_HOME/didact/local, ~/.local/share/didact/local. */
int  conn_default_dir(char *out, size_t cap, struct errbuf *e);

/* Send `req` (its seq is set here), wait for its answer: `want`, or an error that becomes the result. A request that may be
 * repeated unharmed (`again`) is sent once more after a new connection. The caller ends *ans with wire_msg_fini on 0. */
int conn_ask(struct conn *c, struct wire_msg *req, enum wire_kind want, bool again, struct wire_msg *ans, struct errbuf *e);

/* Take a Reply apart, and end it: its code as the result, its document (json_null() where it has none). */
int conn_reply(struct wire_msg *ans, json_t **out, struct errbuf *e);

/* GET a document of docs/api.md; the caller owns *out. */
int conn_query(struct conn *c, json_t **out, struct errbuf *e, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* The answer's document (json_null() where it has none). */
int conn_submit(struct conn *c, const char *yaml, const char *file, int n_set, const char *const *set, bool dry_run, json_t **out,
                struct errbuf *e);
/* arg: what the action is told, "key=value" lines; "" for most. `again`: asking twice is as good as once. */
int conn_action(struct conn *c, const char *job, const char *action, const char *arg, bool again, json_t **out, struct errbuf *e);

/* Upload a file as a blob of `kind` registered as `name` ("": unregistered). `tick(arg, done, total)` may be NULL. */
int conn_put_file(struct conn *c, const char *path, const char *hash, const char *kind, const char *name,
                  void (*tick)(void *arg, uint64_t done, uint64_t total), void *arg, struct errbuf *e);
/* Download a blob to `path`, atomically; its content is checked against the hash. */
int conn_get_file(struct conn *c, const char *hash, const char *path, struct errbuf *e);
/* The first bytes of a blob: *out is malloc'ed, *len at most BLOB_CHUNK; *total the blob's size. */
int conn_get_head(struct conn *c, const char *hash, uint8_t **out, size_t *len, uint64_t *total, struct errbuf *e);

#endif
