/* coord.h - the daemon: one libuv loop that owns the ROUTER, the HTTP listener, the scheduler and everything else in memory.
 * What blocks has a thread of its own: the store writes in one, and hashing, syncing and replaying run in libuv's pool. */
#ifndef DIDACT_COORDINATOR_COORD_H
#define DIDACT_COORDINATOR_COORD_H

#include "common/blob.h"
#include "common/keys.h"
#include "common/wire.h"
#include "common/zwatch.h"
#include "coordinator/opts.h"
#include "coordinator/sched.h"
#include "coordinator/store/store.h"

#include <uv.h>

#define ENDPOINT_MAX 400

struct peer { uint8_t id[255], len; }; /* a ROUTER identity */
struct reply_to { struct peer peer; uint64_t seq; };

struct session;
struct blobs;
struct http;

struct coord {
    struct opts      opts;
    uv_loop_t        loop;
    char             db_path[3100];
    int              lock_fd;
    void            *zctx, *router;
    struct keys_auth *auth;
    struct zwatch    watch;
    uv_async_t       wake;
    uv_timer_t       tick;
    uv_signal_t      sig[2];
    struct store    *store;
    struct reader   *reader;
    struct sched    *sched;
    struct blobs    *blobs;
    struct http     *http;
    struct link      told_waits;  /* questions for results that are not there yet (ask_doc.c) */
    int              n_told_waits;
    struct session **sessions;  /* hash table, chained */
    size_t           n_session_slots, n_sessions;
    int64_t          started_ms;
    int64_t          tick_ms;  /* clock at the last tick; 0: none yet */
    int              n_endpoints;
    char             endpoint[OPTS_MAX_LISTEN][ENDPOINT_MAX], http_url[100];
    uint64_t         messages, refused;
    bool             stopping;
};

int64_t clock_ms(void);

/* loop.c: everything from opening the folder to closing the last handle. Returns an exit status. */
int coord_run(const struct opts *o);
int coord_image_shape(void *arg, const char *hash, struct image_shape *out, struct errbuf *e);
int coord_job_data(void *arg, const struct job_spec *spec, struct job_data *out, struct errbuf *e);

/* session.c */
struct session { struct peer peer; struct worker *worker; struct session *next; };
struct session *session_find(struct coord *c, const struct peer *p);
struct session *session_add(struct coord *c, const struct peer *p, struct worker *w); /* replaces what the worker had */
void session_drop(struct coord *c, struct session *s);
void session_sweep(struct coord *c);     /* forget sessions whose worker went offline */
void session_free_all(struct coord *c);
void session_send(struct coord *c, const struct peer *p, const struct wire_msg *m);
void session_send_lease(void *arg, struct worker *w, const struct task *t);
void session_error(struct coord *c, const struct reply_to *to, int rc, const struct errbuf *e);

/* handle.c */
void handle_ready(void *arg); /* takes one message from the router */

/* blobs.c */
int  blobs_open(struct coord *c, struct errbuf *e);
void blobs_close(struct coord *c);
void blobs_tick(struct coord *c);
void blobs_get(struct coord *c, const struct reply_to *to, const char *hash, uint64_t offset);
void blobs_put(struct coord *c, const struct reply_to *to, const struct wire_msg *m);
bool blobs_has(struct coord *c, const char *hash, uint64_t *bytes);
void blobs_path(struct coord *c, const char *hash, char *out, size_t cap);

/* spaces.c: imported search spaces. */
int  spaces_resolve(struct coord *c, name_str space, hash_str hash, struct errbuf *e); /* name, hash or identity to identity and hash; built in: hash "" */
int  spaces_of_job(void *arg, const struct job_spec *spec, struct errbuf *e); /* afterwards space_find knows what the stored job names; any thread */
const struct space *spaces_find(struct coord *c, const char *identity);      /* space_find, and imported ones are read; NULL: not here */
int  spaces_check(struct coord *c, const char *name, const char *hash, struct errbuf *e); /* may this blob have this name? */

/* submit.c: a job file made whole: parsed, names resolved, checked against the data. */
#define NOTE_MAX 256 /* what a client is told beside a successful answer */
struct submission { struct job_spec spec; struct trial_row *trials; size_t n_trials; struct json_t *dry; char note[NOTE_MAX]; };
int submit_prepare(struct coord *c, const struct wire_msg *m, struct submission *out, struct errbuf *e);
int submit_find_job(struct coord *c, const char *name_or_id, uint64_t *id, struct errbuf *e);
/* Several jobs have exactly this name: says which, and which one is meant. "" where it is clear. */
void submit_say_namesakes(struct coord *c, const char *name_or_id, char *out, size_t cap);

/* docs.c: the documents of docs/api.md. `path` is without the leading "/api/v1/". The caller owns *out. */
int docs_get(struct coord *c, const char *path, struct json_t **out, struct errbuf *e);
void docs_say_namesakes(struct coord *c, const char *path, char *out, size_t cap); /* of the job that jobs/NAME/… names */
/* jobs/ID/replay costs as much as the search's own proposals, jobs/ID/audit thousands of resamples: they run in the pool (slow.c).
 * `done` on the loop. */
bool docs_is_slow(struct coord *c, const char *path);
typedef void (*docs_done)(void *arg, int rc, struct json_t *doc, const struct errbuf *e);
int docs_slow(struct coord *c, const char *path, docs_done done, void *arg, struct errbuf *e);

/* ask_doc.c. The body of a request for proposals; texts are borrowed from `doc`. */
struct proposals { const char *request; struct asked *v; size_t n; struct json_t *doc; };
int  proposals_parse(const char *json, size_t len, struct proposals *out, struct errbuf *e);
void proposals_fini(struct proposals *p);
struct json_t *proposals_doc(const struct sched *s, const struct trial_row *row, size_t n, bool before); /* the answer */
/* jobs/ID/told?wait=S whose results are not there yet: `done` is called when they are, or S seconds are over. Never before it returns. */
bool told_must_wait(struct coord *c, const char *path);
int  told_wait(struct coord *c, const char *path, docs_done done, void *arg, struct errbuf *e);
void told_look(struct coord *c, bool all); /* answer what can be answered now; all: everything, with what there is */

/* book_doc.c. Rows of a CSV with its line of columns, each checked where `check` (what is to be removed may be wrong): *out is malloc'ed. Errors name the row, the first one's number being `first`. */
int book_parse(struct coord *c, char *csv, uint64_t first, bool check, struct book_row **out, size_t *n, struct errbuf *e);

/* http.c */
int  http_open(struct coord *c, struct errbuf *e);
void http_close(struct coord *c);
/* metrics.c: OpenMetrics text, malloc'ed. */
char *metrics_text(struct coord *c);

#endif
