/* session.h - the connection to the coordinator: hello, heartbeats, liveness, and coming back.
 *
 *     DOWN   waits before it tries again: doubled, jittered, capped
 *     HELLO  a fresh socket; hello said (or waiting for the connection to stand), no answer yet
 *     UP     welcomed; a heartbeat every heartbeat_ms; any message proves that the coordinator lives
 *
 * Three heartbeats without a word end a session. ERR_STATE (a coordinator that was restarted does not know us) leads
 * from UP straight to HELLO on the same socket. A new socket for every other try: what waited in the old one is void.
 * Thread: the loop's, which owns the DEALER socket. */
#ifndef DIDACT_WORKER_SESSION_H
#define DIDACT_WORKER_SESSION_H

#include "common/wire.h"

#include <uv.h>

struct session_events {
    void (*fill_hello)(void *arg, struct wire_msg *m);     /* identity and `holding`; arrays stay valid until the next call */
    void (*fill_heartbeat)(void *arg, struct wire_msg *m); /* `holding` and progress */
    void (*up)(void *arg, const struct wire_msg *welcome);
    void (*down)(void *arg);
    void (*message)(void *arg, struct wire_msg *m);        /* every other message while UP; may take what m owns and set it NULL */
    void (*tick)(void *arg, int64_t now_ms);               /* often; in every state */
    void *arg;
};
struct session_cfg {
    char     connect[256];
    char     key[4000], server_key[4000]; /* "" : none */
    uint64_t jitter_seed;
};

struct session;
int  session_new(const struct session_cfg *c, uv_loop_t *loop, void *zmq_ctx, const struct session_events *ev,
                 struct session **out, struct errbuf *e);
bool session_is_up(const struct session *s);
uint32_t session_heartbeat_ms(const struct session *s);
/* Sends now, without waiting; m->seq becomes a fresh number. -ERR_UNREACHABLE where there is no session or its queue is full. */
int  session_post(struct session *s, struct wire_msg *m);
void session_forgotten(struct session *s);                    /* the coordinator does not know us: say hello again */
void session_refused(struct session *s, const char *why);     /* it will not have us: try again after a wait */
/* Goodbye where UP, then close. The memory goes when the loop has run dry. */
void session_stop(struct session *s);

#endif
