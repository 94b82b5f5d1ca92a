/* opts.h - the command line and the environment of didactd, parsed and checked once. */
#ifndef DIDACT_COORDINATOR_OPTS_H
#define DIDACT_COORDINATOR_OPTS_H

#include "common/err.h"

#include <stdbool.h>
#include <stdint.h>

#define OPTS_MAX_LISTEN 8

struct opts {
    char     dir[3000];
    int      n_listen;
    char     listen[OPTS_MAX_LISTEN][300];
    char     http_addr[64];    /* "" : no HTTP */
    uint16_t http_port;
    char     keys[3000];       /* "" : none */
    bool     insecure, http_public;
    char     http_token[3000]; /* file; "": none */
    uint32_t heartbeat_ms, lease_ms;
    int      log_level;
    bool     print_config, version, help;
};

/* Flag, then DIDACT_* variable, then default. Every problem is added to `e`, a line each; -ERR_USAGE on any. */
int  opts_parse(struct opts *o, int argc, char **argv, struct errbuf *e);
/* What may be served without keys; all problems at once: -ERR_DENIED. */
int  opts_check_exposure(const struct opts *o, struct errbuf *e);
void opts_print(const struct opts *o);
void opts_usage(void);

#endif
