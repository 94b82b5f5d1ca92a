/* conf.h - what a worker is told at its start: flag, then DIDACT_* variable, then default; validated as a whole. */
#ifndef DIDACT_WORKER_CONF_H
#define DIDACT_WORKER_CONF_H

#include "common/err.h"
#include "common/job.h"
#include "common/log.h"

#include <stdio.h>

struct worker_conf {
    char           connect[256];
    char           dir[3900];
    name_str       name;
    int            slots;      /* leases computed side by side, one compute thread each */
    int            threads;    /* threads that one teach task may use */
    uint64_t       mem_bytes;  /* budget of one slot */
    char           key[4000], server_key[4000];
    bool           insecure;
    char           isa[32];    /* "" : the best this processor has */
    char           device[32]; /* "auto", "cpu", "cuda", "cuda:1" … */
    enum log_level log_level;
    int            grace_ms;   /* after a stop signal: how long scores may take to finish */
    bool           print_config, version, help;
};

/* Every problem goes to `talk`, one line each. 0, or -ERR_USAGE. */
int  worker_conf_parse(struct worker_conf *c, int argc, char **argv, FILE *talk);
void worker_conf_print(const struct worker_conf *c, FILE *out);
void worker_conf_help(FILE *out);

#endif
