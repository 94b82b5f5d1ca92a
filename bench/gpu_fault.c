/* gpu_fault.c - does the backend know a GPU that is lost to its process?   build/bench/gpu_fault [device=cuda]
 * A child writes where nothing lies: an error that stays, as a fault of a kernel is. Nothing may work there any more, and works() must say so, for a worker ends by
 * it (worker/runner.c). The parent's own process must find the GPU well afterwards: such a fault is one process's. Status 0, or 70.
 * The emulator has no such address and breaks by EMU_BREAKS=1. */
#include "bench/workload.h"
#include "worker/engine/device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct device *open_it(const char *name)
{
    const struct device *d;
    struct errbuf e = { 0 };
    die(device_open(name, &d, &e), &e);
    if (!d)
        die(err_set(&e, ERR_USAGE, "a fault is a device's"), &e);
    return d;
}

static bool said(const char *what, bool as_wanted)
{
    printf("%-8s %s\n", as_wanted ? "ok" : "WRONG", what);
    fflush(stdout);
    return as_wanted;
}

static int child(const char *name)
{
    const struct device *d = open_it(name);
    struct errbuf e = { 0 };
    float number = 0;
    void *q = d->queue_new(), *well = d->alloc(sizeof number);
    bool ok = said("before: works", q && well && d->works());
    if (!ok)
        return 70;
    if (strcmp(d->name(), "emulated") != 0)
        d->zero(q, 1, (struct dev_rows){ (void *)(uintptr_t)256, 0 }, sizeof number); /* near 0 nothing lies, on the GPU as on the CPU */
    ok = said("the fault is an error of what waits", d->get(q, &number, well, sizeof number, &e) < 0) && ok;
    printf("         %s\n", e.text);
    ok = said("works() says no", !d->works()) && ok;
    ok = said("and says no again", !d->works()) && ok;
    ok = said("no memory", !d->alloc(sizeof number)) && ok;
    ok = said("no queue", !d->queue_new()) && ok;
    ok = said("no free bytes", d->free_bytes() == 0) && ok;
    return ok ? 0 : 70;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 && strncmp(argv[1], "device=", 7) == 0 ? argv[1] + 7 : "cuda";
    int status = 0;
    if (argc > 2 || (argc == 2 && strncmp(argv[1], "device=", 7) != 0)) {
        fprintf(stderr, "usage: gpu_fault [device=cuda]\n");
        return 64;
    }
    const pid_t pid = fork(); /* before this process has spoken to the GPU */
    if (pid == 0)
        exit(child(name));
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return 70;
    const bool ok = said("the child ended by itself, and all was well", WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return said("after: another process's GPU works", open_it(name)->works()) && ok ? 0 : 70;
}
