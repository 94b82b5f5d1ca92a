#include "worker/session.h"

#include "common/keys.h"
#include "common/log.h"
#include "common/rng.h"
#include "common/zwatch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#define HELLO_WAIT_MS   2000
#define BACKOFF_MIN_MS  200
#define BACKOFF_MAX_MS  10000
#define HEARTBEAT_MS    1000  /* until the coordinator says */
#define MISSED_BEATS    3
#define TICK_MAX_MS     50
#define QUEUE_MAX       1000
#define GOODBYE_MS      1000  /* linger of the last messages */
#define MESSAGES_A_TURN 64

enum state { DOWN, HELLO, UP, CLOSED, STATE_COUNT };
enum event { EV_TIME, EV_WELCOME, EV_UNKNOWN, EV_REFUSED, EV_SILENCE, EV_STOP, EVENT_COUNT };

/* A socket and its watch: lives until the loop has let go of both. */
struct link {
    struct session *session; /* NULL: let go */
    void           *sock;
    struct zwatch   watch;
};

struct session {
    struct session_cfg    cfg;
    struct session_events ev;
    uv_loop_t            *loop;     /* borrowed */
    void                 *ctx;      /* borrowed */
    enum state            state;
    struct link          *link;     /* of HELLO and UP */
    uv_timer_t            timer;
    struct rng            rng;
    uint64_t              seq, hello_seq;
    int64_t               until_ms; /* DOWN: try again; HELLO: give up */
    int64_t               heard_ms, beat_ms, hello_ms;
    uint32_t              heartbeat_ms;
    int                   failures; /* tries since the last welcome */
    char                  why[256]; /* of the last refusal, for the log */
    int                   tick_ms;
};

static void step(struct session *s, enum event ev);

static int64_t now_of(const struct session *s) { return (int64_t)uv_now(s->loop); }

/* ---- the socket ---- */
static void on_link_closed(void *arg)
{
    struct link *l = arg;
    zmq_close(l->sock);
    free(l);
}

static void drop_link(struct session *s, int linger_ms)
{
    struct link *l = s->link;
    s->link = NULL;
    if (!l)
        return;
    l->session = NULL;
    zmq_setsockopt(l->sock, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
    zwatch_close(&l->watch, on_link_closed, l);
}

static void on_ready(void *arg);

static int set_options(void *sock)
{
    static const struct { int option, value; } want[] = {
        { ZMQ_LINGER, 0 },           { ZMQ_SNDHWM, QUEUE_MAX },        { ZMQ_RCVHWM, QUEUE_MAX },
        { ZMQ_IMMEDIATE, 1 },        { ZMQ_RECONNECT_IVL, 100 },       { ZMQ_RECONNECT_IVL_MAX, 2000 },
        { ZMQ_CONNECT_TIMEOUT, 5000 }, { ZMQ_HANDSHAKE_IVL, 5000 },    { ZMQ_IPV6, 1 },
    };
    int64_t max = WIRE_MAX_BYTES;
    int     bad = zmq_setsockopt(sock, ZMQ_MAXMSGSIZE, &max, sizeof max);
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        bad |= zmq_setsockopt(sock, want[i].option, &want[i].value, sizeof want[i].value);
    return bad;
}

static int open_link(struct session *s, struct errbuf *e)
{
    int          rc = 0;
    struct link *l = calloc(1, sizeof *l);
    if (!l)
        return err_set(e, ERR_NOMEM, "session");
    l->session = s;
    l->sock = zmq_socket(s->ctx, ZMQ_DEALER);
    if (!l->sock || set_options(l->sock) != 0)
        rc = err_set(e, ERR_IO, "socket: %s", zmq_strerror(errno));
    if (rc == 0 && s->cfg.key[0])
        rc = keys_client_setup(l->sock, s->cfg.key, s->cfg.server_key, e);
    if (rc == 0 && zmq_connect(l->sock, s->cfg.connect) != 0)
        rc = err_set(e, ERR_INPUT, "%s: %s", s->cfg.connect, zmq_strerror(errno));
    if (rc == 0)
        rc = zwatch_init(&l->watch, s->loop, l->sock, on_ready, l, MESSAGES_A_TURN, e);
    if (rc < 0) { /* zwatch_init has nothing left open, or closes it by itself: then the struct must stay */
        zwatch_close(&l->watch, on_link_closed, l);
        return rc;
    }
    s->link = l;
    return 0;
}

static int send_now(struct session *s, struct wire_msg *m)
{
    struct errbuf e = { 0 };
    uint8_t      *bytes = NULL;
    size_t        n = 0;
    int           rc;
    if (!s->link)
        return -ERR_UNREACHABLE;
    m->seq = ++s->seq;
    rc = wire_encode(m, &bytes, &n, &e);
    if (rc < 0) {
        log_error("message_invalid", "kind=%d why=\"%s\"", (int)m->kind, e.text);
        return rc;
    }
    if (zmq_send(s->link->sock, bytes, n, ZMQ_DONTWAIT) < 0)
        rc = -ERR_UNREACHABLE;
    free(bytes);
    return rc;
}

/* ---- actions ---- */
static void say_hello(struct session *s)
{
    struct wire_msg m = { .kind = WIRE_WORKER_HELLO };
    s->ev.fill_hello(s->ev.arg, &m);
    s->hello_seq = send_now(s, &m) == 0 ? m.seq : 0;
    s->hello_ms = now_of(s);
}

static void start(struct session *s)
{
    struct errbuf e = { 0 };
    s->until_ms = now_of(s) + HELLO_WAIT_MS;
    if (open_link(s, &e) < 0) {
        memcpy(s->why, e.text, sizeof s->why - 1);
        s->until_ms = 0; /* given up at the next tick */
        return;
    }
    say_hello(s);
}

static void retry_later(struct session *s)
{
    int64_t wait = BACKOFF_MIN_MS;
    for (int i = 0; i < s->failures && wait < BACKOFF_MAX_MS; i++)
        wait *= 2;
    if (wait > BACKOFF_MAX_MS)
        wait = BACKOFF_MAX_MS;
    wait = (int64_t)((double)wait * (0.5 + 0.5 * rng_uniform(&s->rng)));
    drop_link(s, 0);
    s->until_ms = now_of(s) + wait;
    enum log_level level = s->failures == 0 || s->failures % 10 == 9 ? LOG_WARN : LOG_DEBUG;
    log_event(level, "coordinator_unreachable", "connect=%s tries=%d why=\"%s\" next_try_ms=%lld", s->cfg.connect, s->failures + 1,
              s->why[0] ? s->why : s->cfg.key[0] ? "no answer; is it running, and is our key authorised there?" : "no answer; is it running?",
              (long long)wait);
    s->failures++;
    s->why[0] = 0;
}

static void came_up(struct session *s)
{
    s->failures = 0;
    s->why[0] = 0;
    s->beat_ms = s->heard_ms = now_of(s);
}

static void lost(struct session *s)
{
    log_warn("session_lost", "connect=%s next=\"results are kept; reconnecting\"", s->cfg.connect);
    s->failures = 0;
    retry_later(s);
    s->failures = 1;
}

static void again(struct session *s)
{
    log_info("session_unknown", "connect=%s next=\"saying hello again\"", s->cfg.connect);
    s->until_ms = now_of(s) + HELLO_WAIT_MS;
    say_hello(s);
}

static void close_all(struct session *s)
{
    drop_link(s, GOODBYE_MS);
}

static void say_goodbye(struct session *s)
{
    struct wire_msg m = { .kind = WIRE_GOODBYE };
    send_now(s, &m);
    close_all(s);
}

/* ---- the life of a session ---- */
static const struct row {
    enum state from;
    enum event on;
    enum state to;
    void     (*action)(struct session *);
} rows[] = {
    { DOWN,  EV_TIME,    HELLO,  start },
    { DOWN,  EV_STOP,    CLOSED, close_all },
    { HELLO, EV_WELCOME, UP,     came_up },
    { HELLO, EV_TIME,    DOWN,   retry_later },
    { HELLO, EV_REFUSED, DOWN,   retry_later },
    { HELLO, EV_UNKNOWN, DOWN,   retry_later },
    { HELLO, EV_STOP,    CLOSED, close_all },
    { UP,    EV_UNKNOWN, HELLO,  again },
    { UP,    EV_SILENCE, DOWN,   lost },
    { UP,    EV_REFUSED, DOWN,   retry_later },
    { UP,    EV_STOP,    CLOSED, say_goodbye },
};

static void step(struct session *s, enum event ev)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        if (r->from != s->state || r->on != ev)
            continue;
        s->state = r->to;
        r->action(s);
        if (r->from == UP && r->to != UP)
            s->ev.down(s->ev.arg);
        return;
    }
    log_debug("session_event_ignored", "state=%d event=%d", (int)s->state, (int)ev);
}

/* ---- what arrives ---- */
static void on_welcome(struct session *s, const struct wire_msg *m)
{
    if (s->state != HELLO || m->seq != s->hello_seq || s->hello_seq == 0)
        return; /* an answer to a hello that we gave up on */
    s->heartbeat_ms = m->welcome.heartbeat_ms;
    step(s, EV_WELCOME);
    log_info("session_up", "connect=%s coordinator=%s heartbeat_ms=%u lease_ms=%u", s->cfg.connect, m->welcome.coordinator,
             m->welcome.heartbeat_ms, m->welcome.lease_ms);
    s->ev.up(s->ev.arg, m);
}

static void on_message(struct session *s, struct wire_msg *m)
{
    s->heard_ms = now_of(s);
    if (m->kind == WIRE_WORKER_WELCOME) {
        on_welcome(s, m);
    } else if (m->kind == WIRE_ERROR && s->state == HELLO && m->seq == s->hello_seq) {
        session_refused(s, m->reply.text);
        log_warn("hello_refused", "error=%s why=\"%s\"", err_name(m->reply.code), m->reply.text);
    } else if (m->kind == WIRE_ERROR && m->reply.code == ERR_STATE) {
        if (s->state == UP)
            step(s, EV_UNKNOWN);
    } else if (m->kind == WIRE_ERROR && m->reply.code == ERR_DENIED && s->state == UP) {
        log_warn("denied", "error=ERR_DENIED why=\"%s\"", m->reply.text);
        session_refused(s, m->reply.text);
    } else if (s->state == UP) {
        s->ev.message(s->ev.arg, m);
    }
}

static void on_ready(void *arg)
{
    struct link    *l = arg;
    struct session *s = l->session;
    struct wire_msg m;
    struct errbuf   e = { 0 };
    zmq_msg_t       frame;
    zmq_msg_init(&frame);
    if (zmq_msg_recv(&frame, l->sock, ZMQ_DONTWAIT) >= 0 && s && !zmq_msg_more(&frame)) {
        if (wire_decode(zmq_msg_data(&frame), zmq_msg_size(&frame), &m, &e) == 0)
            on_message(s, &m);
        else
            log_warn("message_refused", "why=\"%s\"", e.text);
        wire_msg_fini(&m);
    }
    zmq_msg_close(&frame);
}

/* ---- time ---- */
static void beat(struct session *s)
{
    struct wire_msg m = { .kind = WIRE_HEARTBEAT };
    s->ev.fill_heartbeat(s->ev.arg, &m);
    send_now(s, &m);
    s->beat_ms += s->heartbeat_ms;
    if (s->beat_ms + s->heartbeat_ms < now_of(s))
        s->beat_ms = now_of(s); /* the process was stopped for a while: no burst */
}

static void on_timer(uv_timer_t *t)
{
    struct session *s = t->data;
    int64_t         now = now_of(s);
    if (s->state == UP && now - s->heard_ms > (int64_t)s->heartbeat_ms * MISSED_BEATS)
        step(s, EV_SILENCE);
    else if (s->state == UP && now - s->beat_ms >= (int64_t)s->heartbeat_ms)
        beat(s);
    else if ((s->state == HELLO || s->state == DOWN) && now >= s->until_ms)
        step(s, EV_TIME);
    else if (s->state == HELLO && s->hello_seq == 0) /* the connection did not stand yet */
        say_hello(s);
    s->ev.tick(s->ev.arg, now);
}

/* ---- the public rest ---- */
bool session_is_up(const struct session *s) { return s->state == UP; }

uint32_t session_heartbeat_ms(const struct session *s) { return s->heartbeat_ms; }

int session_post(struct session *s, struct wire_msg *m)
{
    return s->state == UP ? send_now(s, m) : -ERR_UNREACHABLE;
}

void session_forgotten(struct session *s) { step(s, EV_UNKNOWN); }

void session_refused(struct session *s, const char *why)
{
    size_t n = strnlen(why, sizeof s->why - 1);
    memcpy(s->why, why, n);
    s->why[n] = 0;
    step(s, EV_REFUSED);
}

int session_new(const struct session_cfg *c, uv_loop_t *loop, void *zmq_ctx, const struct session_events *ev,
                struct session **out, struct errbuf *e)
{
    *out = NULL;
    if (c->key[0]) { /* a key that cannot be read is said at the start, not at every try */
        void *sock = zmq_socket(zmq_ctx, ZMQ_DEALER);
        int   rc = keys_client_setup(sock, c->key, c->server_key, e);
        zmq_close(sock);
        if (rc < 0)
            return rc;
    }
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, ERR_NOMEM, "session");
    s->cfg = *c;
    s->ev = *ev;
    s->loop = loop;
    s->ctx = zmq_ctx;
    s->heartbeat_ms = HEARTBEAT_MS;
    rng_init(&s->rng, c->jitter_seed, RNG_BACKOFF, 0);
    uv_timer_init(loop, &s->timer);
    s->timer.data = s;
    uv_timer_start(&s->timer, on_timer, 0, TICK_MAX_MS);
    *out = s;
    return 0;
}

static void on_timer_closed(uv_handle_t *h) { free(h->data); }

void session_stop(struct session *s)
{
    if (!s)
        return;
    step(s, EV_STOP);
    assert(s->state == CLOSED);
    uv_close((uv_handle_t *)&s->timer, on_timer_closed);
}
