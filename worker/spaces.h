/* spaces.h - the search space of a task or of a command line. Thread: any (the registry of common/space_file.h has a lock). */
#ifndef DIDACT_WORKER_SPACES_H
#define DIDACT_WORKER_SPACES_H

#include "common/space_file.h"
#include "worker/task.h"

/* The space `name` of a task, `hash` its blob or "": -ERR_INPUT where there is none, -ERR_CORRUPT where the blob is another space. */
int spaces_of_task(const struct task_env *env, const char *name, const char *hash, const struct space **out, struct errbuf *e);
/* The same for all that a teach job draws from. */
int spaces_of_mix(const struct task_env *env, const struct teach_cfg *c, struct errbuf *e);

/* What a person wrote: a built-in space, or the path of a file; a relative one begins in the folder of the file `beside` (NULL: here). */
int spaces_given(const char *text, const char *beside, const struct space **out, struct errbuf *e);

#endif
