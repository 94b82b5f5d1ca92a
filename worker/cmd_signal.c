#include "worker/cmd.h"

#include <signal.h>

static volatile sig_atomic_t stop_signal;
static void on_signal(int s) { stop_signal = s; }

void cmd_catch_signals(void)
{
    struct sigaction a = { .sa_handler = on_signal };
    sigemptyset(&a.sa_mask);
    sigaction(SIGTERM, &a, NULL);
    sigaction(SIGINT, &a, NULL);
}

bool cmd_stopped(void) { return stop_signal != 0; }

bool cmd_cancelled(void *arg)
{
    (void)arg;
    return cmd_stopped();
}
