#include "worker/conf.h"

#include "common/keys.h"
#include "common/suggest.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum opt_id {
    OPT_CONNECT, OPT_DIR, OPT_NAME, OPT_SLOTS, OPT_THREADS, OPT_MEM_MB, OPT_KEY, OPT_SERVER_KEY, OPT_INSECURE, OPT_ISA, OPT_DEVICE,
    OPT_LOG_LEVEL, OPT_GRACE, OPT_PRINT_CONFIG, OPT_VERSION, OPT_HELP, OPT_COUNT
};

static const struct opt { const char *flag, *env, *value, *about; } opts[OPT_COUNT] = {
    [OPT_CONNECT] = { "connect", "DIDACT_CONNECT", "ENDPOINT", "the coordinator: tcp://HOST:PORT or ipc://PATH (required)" },
    [OPT_DIR] = { "dir", "DIDACT_DIR", "DIR", "identity, outbox and cache of this worker (required)" },
    [OPT_NAME] = { "name", "DIDACT_NAME", "NAME", "shown to people (default: the host's name)" },
    [OPT_SLOTS] = { "slots", "DIDACT_SLOTS", "N", "candidates computed side by side (default: one a core)" },
    [OPT_THREADS] = { "threads", "DIDACT_THREADS", "N", "threads that a teach task may use (default: all cores)" },
    [OPT_MEM_MB] = { "mem-mb", "DIDACT_MEM_MB", "N", "memory budget of one slot in MiB (default: 0.8 of the machine's / slots)" },
    [OPT_KEY] = { "key", "DIDACT_KEY", "FILE", "own key pair, from `didact keygen` (NAME.key)" },
    [OPT_SERVER_KEY] = { "server-key", "DIDACT_SERVER_KEY", "FILE", "public key of the coordinator (server.pub)" },
    [OPT_INSECURE] = { "insecure", "DIDACT_INSECURE", NULL, "allow TCP to another machine without keys" },
    [OPT_ISA] = { "isa", "DIDACT_ISA", "CAP", "use no more than: portable, avx2, avx512, neon" },
    [OPT_DEVICE] = { "device", "DIDACT_DEVICE", "D", "beside the CPU, train on: cuda, cuda:N (the N-th GPU); cpu: nothing (default: auto, the first GPU if there is one)" },
    [OPT_LOG_LEVEL] = { "log-level", "DIDACT_LOG_LEVEL", "L", "debug, info, warn or error (default: info)" },
    [OPT_GRACE] = { "grace-s", "DIDACT_GRACE_S", "S", "after a stop signal, seconds for scores to finish (default: 5)" },
    [OPT_PRINT_CONFIG] = { "print-config", NULL, NULL, "print the settings and stop" },
    [OPT_VERSION] = { "version", NULL, NULL, "print the version and stop" },
    [OPT_HELP] = { "help", NULL, NULL, "print this and stop" },
};

void worker_conf_help(FILE *out)
{
    fputs("Example:\n"
          "  didact-worker --connect tcp://127.0.0.1:7707 --dir /var/lib/didact/worker --slots 4\n\n"
          "Computes trials for the coordinator (didactd) until it is told to stop: SIGTERM finishes or hands back what it\n"
          "holds; a second one stops at once. Settings: flag, then variable, then default.\n\n"
          "Usage: didact-worker [OPTIONS]          the daemon\n"
          "       didact-worker run ...            one task of a job file, without a coordinator\n"
          "       didact-worker grad ...           one meta-gradient against a case file\n"
          "       didact-worker plan ...           what the engine would do with an architecture, in how much memory\n"
          "       didact-worker score ...          the scores of a list of architectures as CSV, without a coordinator\n"
          "       didact-worker version\n\nOptions:\n",
          out);
    for (int i = 0; i < OPT_COUNT; i++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", opts[i].flag, opts[i].value ? " " : "", opts[i].value ? opts[i].value : "");
        fprintf(out, "  %-22s %s%s%s%s\n", left, opts[i].about, opts[i].env ? " [" : "", opts[i].env ? opts[i].env : "",
                opts[i].env ? "]" : "");
    }
}

/* One line about one problem; counts as 1. */
static int __attribute__((format(printf, 2, 3))) complain(FILE *talk, const char *fmt, ...)
{
    va_list ap;
    fputs("didact-worker: ", talk);
    va_start(ap, fmt);
    vfprintf(talk, fmt, ap);
    va_end(ap);
    fputc('\n', talk);
    return 1;
}

static int find_opt(const char *name, size_t n)
{
    for (int i = 0; i < OPT_COUNT; i++)
        if (strlen(opts[i].flag) == n && strncmp(opts[i].flag, name, n) == 0)
            return i;
    return -1;
}

/* Flags into value[]; the number of problems. */
static int read_flags(int argc, char **argv, const char *value[OPT_COUNT], FILE *talk)
{
    int bad = 0;
    for (int i = 1; i < argc; i++) {
        const char *a = argv[i], *eq = strchr(a, '=');
        if (strncmp(a, "--", 2) != 0) {
            bad += complain(talk, "unexpected argument \"%s\"", a);
            continue;
        }
        int id = find_opt(a + 2, eq ? (size_t)(eq - a - 2) : strlen(a + 2));
        if (id < 0) {
            const char *names[OPT_COUNT];
            for (int k = 0; k < OPT_COUNT; k++)
                names[k] = opts[k].flag;
            const char *near = suggest(a + 2, names, OPT_COUNT);
            bad += complain(talk, "unknown option %s%s%s", a, near ? "; did you mean --" : "", near ? near : "");
        } else if (!opts[id].value) {
            value[id] = "1";
        } else if (eq) {
            value[id] = eq + 1;
        } else if (i + 1 < argc) {
            value[id] = argv[++i];
        } else {
            bad += complain(talk, "--%s needs a value (%s)", opts[id].flag, opts[id].value);
        }
    }
    return bad;
}

static int take_text(enum opt_id id, const char *v, char *out, size_t cap, FILE *talk)
{
    size_t n = v ? strlen(v) : 0;
    if (n >= cap) {
        return complain(talk, "--%s: longer than %zu bytes", opts[id].flag, cap - 1);
    }
    memcpy(out, v ? v : "", n + 1);
    return 0;
}

static int take_int(enum opt_id id, const char *v, long lo, long hi, long absent, long *out, FILE *talk)
{
    *out = absent;
    if (!v)
        return 0;
    char *end = NULL;
    errno = 0;
    long n = strtol(v, &end, 10);
    if (errno || end == v || *end || n < lo || n > hi) {
        return complain(talk, "--%s: \"%s\" is not a whole number from %ld to %ld", opts[id].flag, v, lo, hi);
    }
    *out = n;
    return 0;
}

static uint64_t machine_memory(void)
{
    uint64_t all = uv_get_total_memory(), limit = uv_get_constrained_memory();
    return limit && limit < all ? limit : all;
}

static int take_numbers(struct worker_conf *c, const char *value[OPT_COUNT], FILE *talk)
{
    long cores = (long)uv_available_parallelism(), slots, threads, mem, grace, bad = 0;
    bad += take_int(OPT_SLOTS, value[OPT_SLOTS], 1, 128, cores < 128 ? cores : 128, &slots, talk);
    bad += take_int(OPT_THREADS, value[OPT_THREADS], 1, 1024, cores, &threads, talk);
    bad += take_int(OPT_MEM_MB, value[OPT_MEM_MB], 16, 16L << 20, 0, &mem, talk);
    bad += take_int(OPT_GRACE, value[OPT_GRACE], 0, 3600, 5, &grace, talk);
    c->slots = (int)slots;
    c->threads = (int)threads;
    c->grace_ms = (int)grace * 1000;
    c->mem_bytes = mem ? (uint64_t)mem << 20 : machine_memory() / (uint64_t)slots / 10 * 8;
    return (int)bad;
}

static int take_switch(enum opt_id id, const char *v, bool *out, FILE *talk)
{
    *out = v && (strcmp(v, "1") == 0 || strcmp(v, "true") == 0 || strcmp(v, "yes") == 0);
    if (!v || *out || !*v || strcmp(v, "0") == 0 || strcmp(v, "false") == 0 || strcmp(v, "no") == 0)
        return 0;
    return complain(talk, "%s: \"%s\" is neither 1 nor 0", opts[id].env ? opts[id].env : opts[id].flag, v);
}

/* What only shows when the settings are seen together. */
static int check_together(const struct worker_conf *c, FILE *talk)
{
    int bad = 0;
    if (!c->connect[0])
        bad += complain(talk, "--connect is missing: the address of the coordinator");
    else if ((strncmp(c->connect, "tcp://", 6) != 0 || !strchr(c->connect + 6, ':')) && strncmp(c->connect, "ipc://", 6) != 0)
        bad += complain(talk, "--connect: \"%s\" is neither tcp://HOST:PORT nor ipc://PATH", c->connect);
    if (!c->dir[0])
        bad += complain(talk, "--dir is missing: a folder for this worker's files");
    if (!!c->key[0] != !!c->server_key[0])
        bad += complain(talk, "--key and --server-key go together");
    if (strncmp(c->connect, "tcp://", 6) == 0 && !c->key[0] && !c->insecure && !endpoint_is_local(c->connect))
        bad += complain(talk, "%s is another machine: give --key and --server-key, or --insecure", c->connect);
    return bad;
}

int worker_conf_parse(struct worker_conf *c, int argc, char **argv, FILE *talk)
{
    const char *value[OPT_COUNT] = { NULL };
    char        host[256] = "worker";
    bool        flag;
    int         bad = read_flags(argc, argv, value, talk);
    memset(c, 0, sizeof *c);
    for (int i = 0; i < OPT_COUNT; i++)
        if (!value[i] && opts[i].env)
            value[i] = getenv(opts[i].env);
    gethostname(host, sizeof host - 1);
    host[NAME_MAX_LEN] = 0;
    c->print_config = value[OPT_PRINT_CONFIG];
    c->version = value[OPT_VERSION];
    c->help = value[OPT_HELP];
    bad += take_text(OPT_CONNECT, value[OPT_CONNECT], c->connect, sizeof c->connect, talk);
    bad += take_text(OPT_DIR, value[OPT_DIR], c->dir, sizeof c->dir, talk);
    bad += take_text(OPT_NAME, value[OPT_NAME] && *value[OPT_NAME] ? value[OPT_NAME] : host, c->name, sizeof c->name, talk);
    bad += take_text(OPT_KEY, value[OPT_KEY], c->key, sizeof c->key, talk);
    bad += take_text(OPT_SERVER_KEY, value[OPT_SERVER_KEY], c->server_key, sizeof c->server_key, talk);
    bad += take_text(OPT_ISA, value[OPT_ISA], c->isa, sizeof c->isa, talk);
    bad += take_text(OPT_DEVICE, value[OPT_DEVICE] && *value[OPT_DEVICE] ? value[OPT_DEVICE] : "auto", c->device, sizeof c->device, talk);
    bad += take_switch(OPT_INSECURE, value[OPT_INSECURE], &flag, talk);
    c->insecure = flag;
    bad += take_numbers(c, value, talk);
    int level = log_level_from(value[OPT_LOG_LEVEL] ? value[OPT_LOG_LEVEL] : "info");
    if (level < 0)
        bad += complain(talk, "--log-level: \"%s\" is not debug, info, warn or error", value[OPT_LOG_LEVEL]);
    c->log_level = level < 0 ? LOG_INFO : (enum log_level)level;
    if (!c->help && !c->version)
        bad += check_together(c, talk);
    return bad ? -ERR_USAGE : 0;
}

void worker_conf_print(const struct worker_conf *c, FILE *out)
{
    static const char *const levels[LOG_LEVEL_COUNT] = { "debug", "info", "warn", "error" };
    fprintf(out, "connect = %s\ndir = %s\nname = %s\nslots = %d\nthreads = %d\nmem-mb = %llu\n", c->connect, c->dir, c->name,
            c->slots, c->threads, (unsigned long long)(c->mem_bytes >> 20));
    fprintf(out, "key = %s\nserver-key = %s\ninsecure = %s\nisa = %s\ndevice = %s\nlog-level = %s\ngrace-s = %d\n", c->key, c->server_key,
            c->insecure ? "yes" : "no", c->isa[0] ? c->isa : "best", c->device, levels[c->log_level], c->grace_ms / 1000);
}
