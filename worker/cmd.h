/* cmd.h - the subcommands of didact-worker. argv[0] is the subcommand's name; the value is the exit status. */
#ifndef DIDACT_WORKER_CMD_H
#define DIDACT_WORKER_CMD_H

#include "common/job.h"
#include "worker/engine/device.h"

#include <stdbool.h>

int cmd_grad(int argc, char **argv); /* one outer step against a case file */
int cmd_plan(int argc, char **argv); /* what the engine would do, and in how much memory */
int cmd_run(int argc, char **argv);  /* one task of a job file, without a coordinator */
int cmd_score(int argc, char **argv); /* the scores of a list of architectures */

/* For those that compute for long: SIGTERM and SIGINT are noted, and the task at work asks whether one came. */
void cmd_catch_signals(void);
bool cmd_stopped(void);
bool cmd_cancelled(void *arg); /* the same as a task_env's `cancelled` */

/* Where a command trains: as its flag says, without one (NULL) as the job does; `any` is the first GPU if there is one. *out NULL: the CPU. */
int cmd_device(const char *flag, enum device_class job, const struct device **out, struct errbuf *e);

#endif
