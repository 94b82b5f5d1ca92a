/* zwatch.h - a ZeroMQ socket inside a libuv loop.
 * ZMQ_FD is edge-triggered, and a send may swallow the edge of a receive: "readable" does not mean that there is a
 * message, and silence does not mean that there is none. So the descriptor only ends the loop's sleep; before each
 * sleep and after each wake ZMQ_EVENTS decides. `on_ready` is called once for each message that waits, at most
 * `budget` times a turn of the loop, so that timers and other handles stay punctual under load.
 * Thread: everything on the loop's thread, which also owns the socket. */
#ifndef DIDACT_ZWATCH_H
#define DIDACT_ZWATCH_H

#include "common/err.h"

#include <uv.h>

struct zwatch {
    void        *sock;                  /* borrowed: close it after on_closed */
    void       (*on_ready)(void *arg);  /* takes exactly one message, ZMQ_DONTWAIT */
    void        *arg;
    int          budget, open_handles;
    uv_poll_t    poll;
    uv_prepare_t prepare;
    uv_check_t   check;
    uv_idle_t    idle;
    void       (*on_closed)(void *arg);
    void        *closed_arg;
};

/* Starts watching. The struct must stay where it is until on_closed was called. */
int zwatch_init(struct zwatch *w, uv_loop_t *loop, void *zmq_sock, void (*on_ready)(void *arg), void *arg, int budget,
                struct errbuf *e);
/* Stops at once; on_closed (may be NULL) is called from the loop when the memory of `w` is the caller's again.
 * A struct that is all zero, or closed already, is fine: on_closed is then called at once. */
void zwatch_close(struct zwatch *w, void (*on_closed)(void *arg), void *arg);

#endif
