/* spaces.h - search spaces at the client: fetched by content, found by name, taken along with a job. */
#ifndef DIDACT_CLIENT_SPACES_H
#define DIDACT_CLIENT_SPACES_H

#include "client/verbs.h"

#include "common/fsio.h"
#include "common/space_file.h"

/* The space of a job: `name` as its document says, `hash` the content ("" where built in), fetched if this process does not have it. */
int space_need(struct conn *conn, const char *name, const char *hash, const struct space **out, struct errbuf *e);
/* What a person names: built in, the path of a file, or imported (by name, identity or hash; only then a coordinator is asked). */
int space_named(struct cli *c, const char *name, const struct space **out);

/* The files that a job names as its spaces, uploaded; `set` is to be set after all else, so that the job means their content. */
struct spaces_taken {
    int  n, n_set;
    char file[MAX_MIX + 1][FS_PATH_MAX + NAME_MAX_LEN + 2];
    const struct space *space[MAX_MIX + 1]; /* of the registry */
    char set[1][MAX_MIX * 128 + 64];
};
/* `file`: where the job's text lies, paths in it are relative to its folder; NULL: to this one, as those in `set` always are. */
int spaces_take(struct conn *conn, const char *yaml, const char *file, int n_set, const char *const *set, struct spaces_taken *t, struct errbuf *e);
/* The job is in: register them under the names that their files give them. */
int spaces_name(struct conn *conn, const struct spaces_taken *t, struct errbuf *e);

#endif
