/* fleet.c - the coordinator's state, its workers, and keys. */
#include "client/verbs.h"

#include "common/keys.h"

#include <math.h>
#include <string.h>

static double or_zero(double v) { return isfinite(v) ? v : 0; }

static void leases_text(const json_t *worker, char *out, size_t cap)
{
    size_t i, used = 0;
    json_t *l;
    out[0] = 0;
    json_array_foreach(json_object_get(worker, "leases"), i, l) {
        if (used + 48 > cap)
            break;
        used += (size_t)snprintf(out + used, cap - used, "%s%.0f/%.0f", used ? " " : "", or_zero(doc_num(l, "job")),
                                 or_zero(doc_num(l, "trial")));
    }
}

void workers_table(const json_t *doc, FILE *f, int width)
{
    static const struct table_col cols[] = { { "WORKER", false, false }, { "STATE", false, false }, { "HOST", false, true },
        { "PID", true, false }, { "DEVICE", false, false }, { "BUSY", true, false }, { "DONE", true, false },
        { "FAILED", true, false }, { "LAST SEEN", false, false }, { "JOB/TRIAL", false, true } };
    struct table t;
    size_t i;
    json_t *w;
    table_init(&t, sizeof cols / sizeof cols[0], cols);
    json_array_foreach(json_object_get(doc, "workers"), i, w) {
        short_str s;
        char leases[256];
        leases_text(w, leases, sizeof leases);
        table_cell(&t, "%s", doc_str(w, "name"));
        table_cell(&t, "%s", doc_str(w, "state"));
        table_cell(&t, "%s", doc_str(w, "host"));
        table_cell(&t, "%.0f", or_zero(doc_num(w, "pid")));
        table_cell(&t, "%s/%s", doc_str(w, "device_class"), doc_str(w, "isa"));
        table_cell(&t, "%.0f/%.0f", or_zero(doc_num(w, "busy")), or_zero(doc_num(w, "slots")));
        table_cell(&t, "%.0f", or_zero(doc_num(w, "done")));
        table_cell(&t, "%.0f", or_zero(doc_num(w, "failed")));
        table_cell(&t, "%s", fmt_time(s, doc_num(w, "last_seen_ms")));
        table_cell(&t, "%s", leases);
    }
    table_print(&t, f, width);
    table_fini(&t);
}

int verb_workers(struct cli *c)
{
    struct conn *conn;
    json_t *doc;
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = conn_query(conn, &doc, c->e, "workers")) < 0)
        return rc;
    if (c->json)
        print_json(stdout, doc);
    else if (json_array_size(json_object_get(doc, "workers")) == 0)
        printf("no workers; didact-worker --connect %s joins one\n", conn_endpoint(conn));
    else
        workers_table(doc, stdout, print_width(stdout));
    json_decref(doc);
    return 0;
}

static void counts_line(const char *label, const json_t *counts)
{
    const char *key;
    json_t *v;
    bool any = false;
    printf("%-12s", label);
    json_object_foreach((json_t *)counts, key, v)
        if (json_is_number(v) && json_number_value(v) > 0) {
            printf("%s %.0f %s", any ? "," : "", json_number_value(v), key);
            any = true;
        }
    printf("%s\n", any ? "" : " none");
}

int verb_status(struct cli *c)
{
    struct conn *conn;
    json_t *doc;
    short_str a, b;
    int rc = cli_conn(c, &conn);
    if (rc < 0 || (rc = conn_query(conn, &doc, c->e, "status")) < 0)
        return rc;
    if (c->json) {
        print_json(stdout, doc);
    } else {
        printf("%-12s %s at %s, up %s\n", "coordinator", doc_str(doc, "version"), conn_endpoint(conn),
               fmt_seconds(a, (doc_num(doc, "now_ms") - doc_num(doc, "started_ms")) / 1000));
        if (*doc_str(doc, "endpoints.http"))
            printf("%-12s %s\n", "http", doc_str(doc, "endpoints.http"));
        counts_line("jobs", doc_get(doc, "jobs"));
        counts_line("trials", doc_get(doc, "trials"));
        printf("%-12s %.0f online, %.0f of %.0f slots busy\n", "workers", or_zero(doc_num(doc, "workers.online")),
               or_zero(doc_num(doc, "workers.busy")), or_zero(doc_num(doc, "workers.slots")));
        printf("%-12s %.2f trials/s over the last minute\n", "rate", or_zero(doc_num(doc, "rates.trials_per_s_1m")));
        printf("%-12s %s, %.0f commits, %.1f rows each\n", "store", fmt_bytes(b, doc_num(doc, "store.db_bytes")),
               or_zero(doc_num(doc, "store.commits")), or_zero(doc_num(doc, "store.rows_per_commit")));
        size_t i;
        json_t *job;
        json_array_foreach(json_object_get(doc, "audits"), i, job) {
            char line[512];
            if (audit_line(job, line, sizeof line))
                printf("job %-8.0f %s\n", doc_num(job, "job"), line);
        }
    }
    json_decref(doc);
    return 0;
}

/* ---- keygen ---- */

static void told(const struct cli *c, const char *made, const char *next)
{
    if (c->json) {
        json_t *doc = json_pack("{s:s}", "made", made);
        print_json(stdout, doc);
        json_decref(doc);
    } else {
        printf("made %s\n%s", made, next);
    }
}

static int keygen_server(struct cli *c, const char *dir)
{
    char made[512], next[1024];
    if (c->n_args || cli_has(c, "role") || cli_has(c, "authorize"))
        return err_set(c->e, ERR_USAGE, "--server makes the coordinator's own folder: no NAME, --role or --authorize with it");
    int rc = keys_init_server(dir, c->e);
    if (rc < 0)
        return rc;
    snprintf(made, sizeof made, "%.200s/server.key (keep it) and %.200s/server.pub", dir, dir);
    snprintf(next, sizeof next, "Start the coordinator with --keys %.200s; workers and clients get a copy of server.pub.\n", dir);
    told(c, made, next);
    return 0;
}

/* `keygen NAME` makes a pair; `keygen FILE.pub --authorize DIR` lets an existing one in. */
int verb_keygen(struct cli *c)
{
    char made[512], next[1024] = "", pub[4096];
    const char *server = cli_str(c, "server", NULL), *dir = cli_str(c, "authorize", NULL), *name = c->n_args ? c->arg[0] : NULL;
    if (server)
        return keygen_server(c, server);
    if (!name)
        return err_set(c->e, ERR_USAGE, "keygen needs the NAME of the pair (or --server DIR)");
    enum key_role role = role_from(cli_str(c, "role", "submitter"));
    if (role == ROLE_NONE)
        return err_set(c->e, ERR_USAGE, "--role is viewer, submitter, worker or admin, not '%s'", cli_str(c, "role", ""));
    const char *dot = strrchr(name, '.');
    bool existing = dir && dot && strcmp(dot, ".pub") == 0;
    int rc = existing ? 0 : keys_generate(name, role, c->e);
    snprintf(pub, sizeof pub, "%s%s", name, existing ? "" : ".pub");
    if (rc == 0 && dir)
        rc = keys_authorize(dir, pub, "", c->e);
    if (rc < 0)
        return rc;
    if (existing)
        snprintf(made, sizeof made, "a copy of %.200s in %.200s/authorized: it is let in", pub, dir);
    else
        snprintf(made, sizeof made, "%.150s.key (keep it) and %.150s.pub, role %s%s", name, name, role_name(role),
                 dir ? ", and let it in" : "");
    if (!dir && role != ROLE_SERVER)
        snprintf(next, sizeof next, "To let it in, on the coordinator's machine: didact keygen %.200s.pub --authorize KEYS_DIR\n", name);
    told(c, made, next);
    return 0;
}
