/* main.c - didact-worker: the daemon, and the subcommands that need no coordinator. */
#include "common/log.h"
#include "worker/cmd.h"
#include "worker/conf.h"
#include "worker/engine/device.h"
#include "worker/engine/engine.h"
#include "worker/loop.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static int print_version(void)
{
    struct errbuf e = { 0 };
    printf("didact-worker %s (engine %s, %s)\n", DIDACT_VERSION, ENGINE_VERSION, eng_init(NULL, &e) == 0 ? eng_isa() : "no isa");
    return 0;
}

static int cmd_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return print_version();
}

static const struct { const char *name; int (*run)(int argc, char **argv); } commands[] = {
    { "grad", cmd_grad },
    { "plan", cmd_plan },
    { "run", cmd_run },
    { "score", cmd_score },
    { "version", cmd_version },
};

/* What the worker drives beside its CPU. Where the device that was asked for is not there, or its backend is of another build, it says so
 * and goes on without. */
static int find_device(const struct worker_conf *c, const struct device **out, struct errbuf *e)
{
    const bool look = strcmp(c->device, "auto") == 0;
    int rc = device_open(look ? "cuda" : c->device, out, e);
    if (rc == -ERR_USAGE)
        return rc;
    if (rc == 0 && *out)
        log_info("device", "kind=%s name=\"%s\" free_mib=%llu", (*out)->kind, (*out)->name(), (unsigned long long)((*out)->free_bytes() >> 20));
    else if (rc == -ERR_UNAVAILABLE && look)
        log_info("device", "kind=cpu why=\"%s\"", e->text);
    else if (rc < 0)
        log_warn("device", "asked=%s kind=cpu why=\"%s\"", c->device, e->text);
    return 0;
}

static int serve(const struct worker_conf *c)
{
    struct errbuf       e = { 0 };
    struct worker      *w = NULL;
    struct worker_tasks tasks = { .fn = { [TASK_SCORE] = task_score, [TASK_TRAIN] = task_train, [TASK_TEACH] = task_teach },
                                  .thread_init = eng_thread_init, .engine_version = ENGINE_VERSION };
    int rc = eng_init(c->isa, &e);
    tasks.isa = rc == 0 ? eng_isa() : "";
    if (rc == 0)
        rc = find_device(c, &tasks.device, &e);
    if (rc == 0)
        rc = worker_new(c, &tasks, &w, &e);
    if (rc < 0) {
        log_error("start_failed", "error=%s why=\"%s\"", err_name(rc), err_message(&e, rc));
        return err_exit_status(rc);
    }
    int status = worker_run(w, true);
    worker_free(w);
    return status;
}

int main(int argc, char **argv)
{
    static struct worker_conf c;
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    int rc = worker_conf_parse(&c, argc, argv, stderr);
    if (rc == 0 && c.help) {
        worker_conf_help(stdout);
        return 0;
    }
    if (rc == 0 && c.version)
        return print_version();
    if (rc < 0) {
        fputs("Try: didact-worker --help\n", stderr);
        return err_exit_status(rc);
    }
    if (c.print_config) {
        worker_conf_print(&c, stdout);
        return 0;
    }
    log_init("worker", c.log_level);
    signal(SIGPIPE, SIG_IGN);
    worker_hold_signals();
    if (c.insecure && !c.key[0])
        log_warn("insecure", "connect=%s why=\"no keys: anybody on the way can read and change everything\"", c.connect);
    return serve(&c);
}
