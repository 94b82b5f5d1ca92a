/* http_guard.h - whom the HTTP side answers, and who may write there.
 *
 * Reading: anybody who reaches the address. On loopback only under a name of this machine (Host), so that a web page cannot read through a name
 * of its own that resolves to 127.0.0.1.
 * Writing: with a token in a file, whoever sends it (Authorization: Bearer). Without one, programs on this machine alone: the address is
 * loopback and not declared public. Web pages never: the body must be application/json, which a page of another site cannot send unasked, and
 * an Origin, where there is one, must be our own. */
#ifndef DIDACT_COORDINATOR_HTTP_GUARD_H
#define DIDACT_COORDINATOR_HTTP_GUARD_H

#include "common/err.h"
#include "coordinator/opts.h"

#define HTTP_TOKEN_MIN 16
#define HTTP_TOKEN_MAX 200

struct MHD_Connection;
struct http_guard {
    bool public;                     /* any Host; no writing without a token */
    char token[HTTP_TOKEN_MAX + 1];  /* "": none */
};

/* -ERR_DENIED where others may read the file; -ERR_INPUT where it holds no token. */
int http_guard_init(struct http_guard *g, const struct opts *o, struct errbuf *e);
int http_guard_host(const struct http_guard *g, struct MHD_Connection *conn, struct errbuf *e);  /* 0 or -ERR_DENIED */
int http_guard_write(const struct http_guard *g, struct MHD_Connection *conn, struct errbuf *e); /* 0, -ERR_DENIED or -ERR_INPUT */
bool http_host_is_local(const char *host); /* "localhost:80", "127.1.2.3", "[::1]:7780" */

#endif
