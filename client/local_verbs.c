/* local_verbs.c - didact local start, stop, status. */
#include "client/local.h"
#include "client/verbs.h"

#include <string.h>
#include <unistd.h>

int verb_local_start(struct cli *c)
{
    struct local_cfg cfg = { .workers = 2, .slots = 1 };
    int64_t workers = 2, slots = 1, threads = 0;
    struct local_state st;
    int rc = local_dir(cli_str(c, "dir", NULL), cfg.dir, c->e);
    if (rc < 0 || (rc = cli_int(c, "workers", 0, LOCAL_MAX_WORKERS, &workers)) < 0 || (rc = cli_int(c, "slots", 1, 128, &slots)) < 0 ||
        (rc = cli_int(c, "threads", 1, 1024, &threads)) < 0)
        return rc;
    cfg.workers = (int)workers;
    cfg.slots = (int)slots;
    cfg.threads = (int)threads;
    if ((rc = local_start(&cfg, stderr, c->e)) < 0)
        return rc;
    local_look(cfg.dir, &st);
    if (c->json) {
        json_t *doc = json_pack("{s:s,s:I,s:i}", "dir", cfg.dir, "pid", (json_int_t)st.coordinator, "workers", st.n_workers);
        print_json(stdout, doc);
        json_decref(doc);
        return 0;
    }
    bool standard = !cli_has(c, "dir");
    printf("running in %s: a coordinator and %d worker%s; logs in %s/logs\n", cfg.dir, st.n_workers, st.n_workers == 1 ? "" : "s", cfg.dir);
    printf("next: didact dataset import FOLDER NAME%s%s, didact submit JOB.yaml%s%s\n", standard ? "" : " --dir ",
           standard ? "" : cli_str(c, "dir", ""), standard ? "" : " --dir ", standard ? "" : cli_str(c, "dir", ""));
    return 0;
}

int verb_local_stop(struct cli *c)
{
    char dir[FS_PATH_MAX];
    int stopped, rc = local_dir(cli_str(c, "dir", NULL), dir, c->e);
    if (rc < 0 || (rc = local_stop(dir, &stopped, stderr, c->e)) < 0)
        return rc;
    if (c->json) {
        json_t *doc = json_pack("{s:s,s:i}", "dir", dir, "stopped", stopped);
        print_json(stdout, doc);
        json_decref(doc);
    } else if (stopped) {
        printf("stopped %d process%s; everything is kept in %s\n", stopped, stopped == 1 ? "" : "es", dir);
    } else {
        printf("nothing runs in %s\n", dir);
    }
    return 0;
}

/* --json gives the coordinator's `status` document, so that scripts need one form only. */
int verb_local_status(struct cli *c)
{
    char dir[FS_PATH_MAX];
    struct local_state st;
    int rc = local_dir(cli_str(c, "dir", NULL), dir, c->e);
    if (rc < 0)
        return rc;
    local_look(dir, &st);
    if (!st.coordinator)
        return err_set(c->e, ERR_UNREACHABLE, "no coordinator runs in %s; didact local start%s%s starts one", dir,
                       cli_has(c, "dir") ? " --dir " : "", cli_str(c, "dir", ""));
    if (!c->json) {
        printf("folder       %s\nprocesses    didactd %ld", dir, st.coordinator);
        for (int i = 0; i < st.n_workers; i++)
            printf(", %s %ld", st.worker[i].name, st.worker[i].pid);
        printf("\n");
    }
    return verb_status(c);
}
