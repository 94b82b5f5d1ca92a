/* keys_auth.c - the ZAP 1.0 authenticator (rfc.zeromq.org/spec/27): libzmq asks at inproc://zeromq.zap.01 about every
 * CURVE handshake; the answer is 200 with the role as User-Id, or 400.
 * The authorised folder is listed again when its own time stamp changed, or when the last listing is older than
 * RESCAN_MS (a file edited in place does not touch the folder; two changes may fall into one tick of the clock).
 * A file that cannot be read or parsed lets nobody in and is logged once per listing. */
#include "common/fsio.h"
#include "common/keys.h"
#include "common/keys_int.h"
#include "common/log.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_FRAMES   7      /* version, request, domain, address, identity, mechanism, key */
#define RESCAN_MS    1000
#define MAX_CLIENTS  65536

struct client { char key[Z85_LEN + 1]; enum key_role role; };

struct keys_auth {
    char            dir[FS_PATH_MAX];   /* DIR/authorized */
    void           *rep, *stop_in, *stop_out;
    pthread_t       thread;
    struct client  *client;             /* owned, sorted by key */
    int             n, cap;
    struct timespec dir_time;
    int64_t         listed_ms;          /* 0: never */
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + 1;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(((const struct client *)a)->key, ((const struct client *)b)->key);
}

static void add_client(struct keys_auth *a, const char *name)
{
    struct errbuf   e = { 0 };
    struct key_file k;
    char            path[FS_PATH_MAX + 300];
    snprintf(path, sizeof path, "%s/%s", a->dir, name);
    if (key_file_read(path, false, &k, &e) < 0) {
        log_warn("key_refused", "file=\"%s\" why=\"%s\"", name, e.text);
        return;
    }
    if (k.role == ROLE_NONE || k.role == ROLE_SERVER) {
        log_warn("key_refused", "file=\"%s\" why=\"no role line of a client\"", name);
        return;
    }
    if (a->n == a->cap) {
        int            cap = a->cap ? 2 * a->cap : 16;
        struct client *c = a->n < MAX_CLIENTS ? realloc(a->client, (size_t)cap * sizeof *c) : NULL;
        if (!c) {
            log_error("key_refused", "file=\"%s\" why=\"too many keys\"", name);
            return;
        }
        a->client = c;
        a->cap = cap;
    }
    memcpy(a->client[a->n].key, k.public_key, sizeof k.public_key);
    a->client[a->n++].role = k.role;
}

static void list_clients(struct keys_auth *a)
{
    struct stat st;
    if (stat(a->dir, &st) != 0) {
        a->n = 0;
        return;
    }
    if (a->listed_ms && now_ms() - a->listed_ms < RESCAN_MS && st.st_mtim.tv_sec == a->dir_time.tv_sec &&
        st.st_mtim.tv_nsec == a->dir_time.tv_nsec)
        return;
    a->n = 0;
    DIR *d = opendir(a->dir);
    for (struct dirent *ent; d && (ent = readdir(d));) {
        size_t len = strlen(ent->d_name);
        if (ent->d_name[0] != '.' && len > 4 && strcmp(ent->d_name + len - 4, ".pub") == 0)
            add_client(a, ent->d_name);
    }
    if (d)
        closedir(d);
    if (a->n)
        qsort(a->client, (size_t)a->n, sizeof *a->client, by_key);
    a->dir_time = st.st_mtim;
    a->listed_ms = now_ms();
}

static enum key_role look_up(struct keys_auth *a, const uint8_t raw[32])
{
    struct client want;
    list_clients(a);
    if (!zmq_z85_encode(want.key, raw, 32) || a->n == 0)
        return ROLE_NONE;
    struct client *c = bsearch(&want, a->client, (size_t)a->n, sizeof want, by_key);
    return c ? c->role : ROLE_NONE;
}

static void reply(struct keys_auth *a, const void *request, size_t n_request, enum key_role role)
{
    const char *code = role != ROLE_NONE ? "200" : "400";
    const char *text = role != ROLE_NONE ? "OK" : "this key is not authorised";
    const char *user = role != ROLE_NONE ? role_name(role) : "";
    zmq_send(a->rep, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(a->rep, request, n_request, ZMQ_SNDMORE);
    zmq_send(a->rep, code, 3, ZMQ_SNDMORE);
    zmq_send(a->rep, text, strlen(text), ZMQ_SNDMORE);
    zmq_send(a->rep, user, strlen(user), ZMQ_SNDMORE);
    zmq_send(a->rep, "", 0, 0);
}

/* One request; false when the context is going away. */
static bool serve(struct keys_auth *a)
{
    uint8_t frame[ZAP_FRAMES][256];
    size_t  size[ZAP_FRAMES] = { 0 };
    int     n = 0, more = 1;
    while (more) {
        uint8_t spare[256];
        size_t  more_size = sizeof more;
        int     got = zmq_recv(a->rep, n < ZAP_FRAMES ? frame[n] : spare, sizeof spare, 0);
        if (got < 0)
            return errno == EINTR;
        if (n < ZAP_FRAMES)
            size[n] = (size_t)got < sizeof spare ? (size_t)got : sizeof spare;
        n++;
        zmq_getsockopt(a->rep, ZMQ_RCVMORE, &more, &more_size);
    }
    enum key_role role = ROLE_NONE;
    bool          curve = n == ZAP_FRAMES && size[0] == 3 && memcmp(frame[0], "1.0", 3) == 0 && size[5] == 5 &&
                 memcmp(frame[5], "CURVE", 5) == 0 && size[6] == 32;
    if (curve)
        role = look_up(a, frame[6]);
    if (role == ROLE_NONE)
        log_warn("peer_refused", "addr=%.*s why=\"key not in %s\"", n > 3 ? (int)size[3] : 0,
                 n > 3 ? (const char *)frame[3] : "", a->dir);
    reply(a, frame[1], size[1], role);
    return true;
}

static void *auth_main(void *arg)
{
    struct keys_auth *a = arg;
    zmq_pollitem_t    item[2] = { { a->rep, 0, ZMQ_POLLIN, 0 }, { a->stop_in, 0, ZMQ_POLLIN, 0 } };
    for (;;) {
        if (zmq_poll(item, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            break;
        }
        if (item[1].revents)
            break;
        if (item[0].revents && !serve(a))
            break;
    }
    return NULL;
}

static int open_sockets(struct keys_auth *a, void *ctx, struct errbuf *e)
{
    char name[64];
    int  linger = 0;
    snprintf(name, sizeof name, "inproc://didact.zap.stop.%p", (void *)a);
    a->rep = zmq_socket(ctx, ZMQ_REP);
    a->stop_in = zmq_socket(ctx, ZMQ_PAIR);
    a->stop_out = zmq_socket(ctx, ZMQ_PAIR);
    if (!a->rep || !a->stop_in || !a->stop_out || zmq_bind(a->stop_in, name) != 0 || zmq_connect(a->stop_out, name) != 0)
        return err_set(e, ERR_IO, "authenticator: %s", zmq_strerror(errno));
    zmq_setsockopt(a->rep, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(a->stop_out, ZMQ_LINGER, &linger, sizeof linger);
    if (zmq_bind(a->rep, ZAP_ENDPOINT) != 0)
        return err_set(e, ERR_STATE, "authenticator: %s", zmq_strerror(errno));
    return 0;
}

static void auth_free(struct keys_auth *a)
{
    if (a->rep)
        zmq_close(a->rep);
    if (a->stop_in)
        zmq_close(a->stop_in);
    if (a->stop_out)
        zmq_close(a->stop_out);
    free(a->client);
    free(a);
}

static int set_server_options(void *router, const struct key_file *own, struct errbuf *e)
{
    int on = 1;
    if (zmq_setsockopt(router, ZMQ_CURVE_SERVER, &on, sizeof on) != 0 ||
        zmq_setsockopt(router, ZMQ_CURVE_SECRETKEY, own->secret_key, Z85_LEN + 1) != 0 ||
        zmq_setsockopt(router, ZMQ_ZAP_DOMAIN, "didact", 6) != 0)
        return err_set(e, ERR_UNAVAILABLE, "CURVE: %s", zmq_strerror(errno));
    return 0;
}

int keys_server_setup(void *ctx, void *router, const char *keys_dir, struct keys_auth **out, struct errbuf *e)
{
    struct key_file   own;
    char              path[FS_PATH_MAX];
    struct keys_auth *a = NULL;
    *out = NULL;
    if (snprintf(path, sizeof path, "%s/server.key", keys_dir) >= (int)sizeof path)
        return err_set(e, ERR_INPUT, "%s: the path is too long", keys_dir);
    int rc = key_file_read(path, true, &own, e);
    if (rc < 0)
        return rc;
    a = calloc(1, sizeof *a);
    if (!a)
        return err_set(e, ERR_NOMEM, "authenticator");
    if (snprintf(a->dir, sizeof a->dir, "%s/authorized", keys_dir) >= (int)sizeof a->dir)
        rc = err_set(e, ERR_INPUT, "%s: the path is too long", keys_dir);
    if (rc == 0 && !fs_is_dir(a->dir))
        rc = err_set(e, ERR_NOTFOUND, "%s: no such folder", a->dir);
    if (rc == 0)
        rc = open_sockets(a, ctx, e);
    if (rc == 0)
        rc = set_server_options(router, &own, e);
    if (rc == 0 && pthread_create(&a->thread, NULL, auth_main, a) != 0)
        rc = err_set(e, ERR_NOMEM, "authenticator: cannot start its thread");
    explicit_bzero(&own, sizeof own);
    if (rc < 0)
        auth_free(a);
    else
        *out = a;
    return rc;
}

void keys_server_stop(struct keys_auth *a)
{
    if (!a)
        return;
    zmq_send(a->stop_out, "", 0, 0);
    pthread_join(a->thread, NULL);
    auth_free(a);
}
