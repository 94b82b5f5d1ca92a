#include "common/zwatch.h"

#include <string.h>
#include <zmq.h>

static bool pending(const struct zwatch *w)
{
    int ev = 0;
    size_t n = sizeof ev;
    return zmq_getsockopt(w->sock, ZMQ_EVENTS, &ev, &n) == 0 && (ev & ZMQ_POLLIN);
}

static void on_idle(uv_idle_t *h)
{
    (void)h; /* an active idle handle makes the loop's timeout 0; that is all it is for */
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    (void)h; /* ends the sleep; on_check does the work */
    (void)status;
    (void)events;
}

static void on_prepare(uv_prepare_t *h) /* last stop before the loop sleeps */
{
    struct zwatch *w = h->data;
    if (pending(w))
        uv_idle_start(&w->idle, on_idle);
    else
        uv_idle_stop(&w->idle);
}

static void on_check(uv_check_t *h) /* first stop after it wakes */
{
    struct zwatch *w = h->data;
    for (int i = 0; i < w->budget && !uv_is_closing((uv_handle_t *)&w->check) && pending(w); i++)
        w->on_ready(w->arg);
}

static void on_handle_closed(uv_handle_t *h)
{
    struct zwatch *w = h->data;
    if (--w->open_handles == 0 && w->on_closed)
        w->on_closed(w->closed_arg);
}

int zwatch_init(struct zwatch *w, uv_loop_t *loop, void *zmq_sock, void (*on_ready)(void *arg), void *arg, int budget,
                struct errbuf *e)
{
    memset(w, 0, sizeof *w);
    w->sock = zmq_sock;
    w->on_ready = on_ready;
    w->arg = arg;
    w->budget = budget > 0 ? budget : 1;
    int fd = -1;
    size_t n = sizeof fd;
    if (zmq_getsockopt(zmq_sock, ZMQ_FD, &fd, &n) != 0)
        return err_set(e, ERR_IO, "ZMQ_FD: %s", zmq_strerror(zmq_errno()));
    int rc = uv_poll_init(loop, &w->poll, fd);
    if (rc < 0)
        return err_set(e, ERR_IO, "cannot watch the socket: %s", uv_strerror(rc));
    uv_prepare_init(loop, &w->prepare); /* these three cannot fail */
    uv_check_init(loop, &w->check);
    uv_idle_init(loop, &w->idle);
    w->poll.data = w->prepare.data = w->check.data = w->idle.data = w;
    w->open_handles = 4;
    uv_prepare_start(&w->prepare, on_prepare);
    uv_check_start(&w->check, on_check);
    rc = uv_poll_start(&w->poll, UV_READABLE, on_poll);
    if (rc < 0) {
        zwatch_close(w, NULL, NULL);
        return err_set(e, ERR_IO, "cannot watch the socket: %s", uv_strerror(rc));
    }
    return 0;
}

void zwatch_close(struct zwatch *w, void (*on_closed)(void *arg), void *arg)
{
    if (w->open_handles == 0) {
        if (on_closed)
            on_closed(arg);
        return;
    }
    w->on_closed = on_closed;
    w->closed_arg = arg;
    if (uv_is_closing((uv_handle_t *)&w->poll))
        return; /* on its way: only who is told has changed */
    uv_close((uv_handle_t *)&w->poll, on_handle_closed);
    uv_close((uv_handle_t *)&w->prepare, on_handle_closed);
    uv_close((uv_handle_t *)&w->check, on_handle_closed);
    uv_close((uv_handle_t *)&w->idle, on_handle_closed);
}
