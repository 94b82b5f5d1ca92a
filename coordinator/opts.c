#include "coordinator/opts.h"

#include "common/keys.h"
#include "common/log.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum type { T_TEXT, T_FLAG, T_UINT, T_LISTEN, T_HTTP, T_LEVEL };

static const struct opt {
    const char *flag, *env, *arg, *help;
    enum type   type;
    size_t      offset, size;
    unsigned    least, most;
} table[] = {
#define AT(field) offsetof(struct opts, field), sizeof(((struct opts *)0)->field)
    { "--dir", "DIDACT_DIR", "DIR", "folder of the database and the blobs (made if absent); required", T_TEXT, AT(dir), 0, 0 },
    { "--listen", "DIDACT_LISTEN", "ENDPOINT", "where workers and clients connect; repeat for more, in the variable separate by\n"
      "                        commas (default ipc://DIR/didactd.sock)", T_LISTEN, AT(listen), 0, 0 },
    { "--http", "DIDACT_HTTP", "ADDR:PORT", "HTTP for status, metrics, the API and outside searchers; `off` for none (default 127.0.0.1:0)",
      T_HTTP, AT(http_addr), 0, 0 },
    { "--keys", "DIDACT_KEYS", "DIR", "CURVE keys and who may do what; needed for TCP that is not loopback", T_TEXT, AT(keys), 0, 0 },
    { "--insecure", "DIDACT_INSECURE", NULL, "serve ZeroMQ without keys beyond this machine: anybody who reaches it may do anything",
      T_FLAG, AT(insecure), 0, 0 },
    { "--http-public", "DIDACT_HTTP_PUBLIC", NULL, "serve HTTP beyond this machine: it has no authentication, anybody may read",
      T_FLAG, AT(http_public), 0, 0 },
    { "--http-token", "DIDACT_HTTP_TOKEN", "FILE", "who writes over HTTP (proposals of outside searchers) must know the token in FILE",
      T_TEXT, AT(http_token), 0, 0 },
    { "--heartbeat-ms", "DIDACT_HEARTBEAT_MS", "N", "how often workers report (default 2000)", T_UINT, AT(heartbeat_ms), 10, 600000 },
    { "--lease-ms", "DIDACT_LEASE_MS", "N", "a lease not renewed for so long is given to another worker (default 30000)",
      T_UINT, AT(lease_ms), 30, 86400000 },
    { "--log-level", "DIDACT_LOG_LEVEL", "L", "debug, info, warn or error (default info)", T_LEVEL, AT(log_level), 0, 0 },
    { "--print-config", NULL, NULL, "print what would be used, and stop", T_FLAG, AT(print_config), 0, 0 },
    { "--version", NULL, NULL, "print the version, and stop", T_FLAG, AT(version), 0, 0 },
    { "--help", NULL, NULL, "print this, and stop", T_FLAG, AT(help), 0, 0 },
};
#define N_OPTS (sizeof table / sizeof *table)

static void problem(struct errbuf *e, enum err code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void problem(struct errbuf *e, enum err code, const char *fmt, ...)
{
    size_t n = strlen(e->text);
    va_list ap;
    e->code = (int)code;
    if (n + 2 >= sizeof e->text)
        return;
    if (n)
        e->text[n++] = '\n';
    va_start(ap, fmt);
    vsnprintf(e->text + n, sizeof e->text - n, fmt, ap);
    va_end(ap);
}

static bool endpoint_ok(const char *s)
{
    if (strncmp(s, "ipc://", 6) == 0)
        return s[6] != 0;
    if (strncmp(s, "tcp://", 6) != 0)
        return false;
    const char *colon = strrchr(s + 6, ':');
    return colon && colon > s + 6 && colon[1] && (strcmp(colon + 1, "*") == 0 || strspn(colon + 1, "0123456789") == strlen(colon + 1));
}

static void set_listen(struct opts *o, const char *v, const char *from, struct errbuf *e)
{
    char copy[OPTS_MAX_LISTEN * 300], *save = NULL;
    snprintf(copy, sizeof copy, "%s", v);
    for (char *p = strtok_r(copy, ",", &save); p; p = strtok_r(NULL, ",", &save)) {
        if (!endpoint_ok(p))
            problem(e, ERR_USAGE, "%s: \"%s\" is no endpoint; write tcp://ADDRESS:PORT or ipc://PATH", from, p);
        else if (o->n_listen == OPTS_MAX_LISTEN || strlen(p) >= sizeof o->listen[0])
            problem(e, ERR_USAGE, "%s: more than %d endpoints, or one that is too long", from, OPTS_MAX_LISTEN);
        else
            snprintf(o->listen[o->n_listen++], sizeof o->listen[0], "%s", p);
    }
}

static void set_http(struct opts *o, const char *v, const char *from, struct errbuf *e)
{
    const char *colon = strrchr(v, ':');
    char *end = NULL;
    struct in_addr a;
    if (strcmp(v, "off") == 0) {
        o->http_addr[0] = 0;
        return;
    }
    long port = colon ? strtol(colon + 1, &end, 10) : -1;
    size_t n = colon ? (size_t)(colon - v) : 0;
    if (!colon || end == colon + 1 || *end || port < 0 || port > 65535 || n == 0 || n >= sizeof o->http_addr) {
        problem(e, ERR_USAGE, "%s: \"%s\" is not ADDR:PORT, nor off", from, v);
        return;
    }
    memcpy(o->http_addr, strncmp(v, "localhost:", 10) == 0 ? "127.0.0.1" : v, n);
    o->http_addr[n] = 0;
    o->http_port = (uint16_t)port;
    if (inet_pton(AF_INET, o->http_addr, &a) != 1)
        problem(e, ERR_USAGE, "%s: \"%s\" is no IPv4 address", from, o->http_addr);
}

static void set(struct opts *o, const struct opt *p, const char *v, const char *from, struct errbuf *e)
{
    char *field = (char *)o + p->offset, *end;
    switch (p->type) {
    case T_FLAG:
        *(bool *)field = strcmp(v, "0") != 0 && strcmp(v, "no") != 0 && strcmp(v, "false") != 0 && v[0];
        break;
    case T_TEXT:
        if (strlen(v) >= p->size || !v[0])
            problem(e, ERR_USAGE, "%s: empty, or longer than %zu bytes", from, p->size - 1);
        else
            memcpy(field, v, strlen(v) + 1);
        break;
    case T_UINT: {
        unsigned long n = strtoul(v, &end, 10);
        if (!v[0] || *end || v[0] == '-' || n < p->least || n > p->most)
            problem(e, ERR_USAGE, "%s: \"%s\" is not a number from %u to %u", from, v, p->least, p->most);
        else
            *(uint32_t *)(void *)field = (uint32_t)n;
        break;
    }
    case T_LEVEL: {
        int l = log_level_from(v);
        if (l < 0)
            problem(e, ERR_USAGE, "%s: \"%s\" is no level; write debug, info, warn or error", from, v);
        else
            *(int *)(void *)field = l;
        break;
    }
    case T_LISTEN: set_listen(o, v, from, e); break;
    case T_HTTP: set_http(o, v, from, e); break;
    }
}

static const struct opt *find(const char *arg, const char **value)
{
    size_t n = strcspn(arg, "=");
    for (size_t i = 0; i < N_OPTS; i++)
        if (strlen(table[i].flag) == n && strncmp(table[i].flag, arg, n) == 0) {
            *value = arg[n] ? arg + n + 1 : NULL;
            return &table[i];
        }
    return NULL;
}

int opts_parse(struct opts *o, int argc, char **argv, struct errbuf *e)
{
    bool given[N_OPTS] = { false };
    memset(o, 0, sizeof *o);
    memset(e, 0, sizeof *e);
    snprintf(o->http_addr, sizeof o->http_addr, "127.0.0.1");
    o->heartbeat_ms = 2000;
    o->lease_ms = 30000;
    o->log_level = LOG_INFO;
    for (int i = 1; i < argc; i++) {
        const char *value;
        const struct opt *p = find(argv[i], &value);
        if (!p) {
            problem(e, ERR_USAGE, "%s: no such option (didactd --help lists them)", argv[i]);
            continue;
        }
        if (p->type == T_FLAG)
            value = value ? value : "1";
        else if (!value && i + 1 < argc)
            value = argv[++i];
        given[p - table] = true;
        if (value)
            set(o, p, value, p->flag, e);
        else
            problem(e, ERR_USAGE, "%s needs %s", p->flag, p->arg);
    }
    for (size_t k = 0; k < N_OPTS; k++) {
        const char *v = table[k].env && !given[k] ? getenv(table[k].env) : NULL;
        if (v && *v)
            set(o, &table[k], v, table[k].env, e);
    }
    if (o->help || o->version)
        return 0;
    if (!o->dir[0])
        problem(e, ERR_USAGE, "--dir DIR is required: where the database and the blobs live");
    if (o->lease_ms < 2 * o->heartbeat_ms)
        problem(e, ERR_USAGE, "--lease-ms %u is less than two heartbeats of %u ms: leases would run out while their workers are well",
                o->lease_ms, o->heartbeat_ms);
    if (o->n_listen == 0 && o->dir[0]) {
        if (strlen(o->dir) + 20 > 107) /* sun_path */
            problem(e, ERR_USAGE, "%s/didactd.sock is too long a name for a socket; give --listen", o->dir);
        else
            snprintf(o->listen[o->n_listen++], sizeof o->listen[0], "ipc://%.200s/didactd.sock", o->dir);
    }
    return e->code ? -e->code : 0;
}

int opts_check_exposure(const struct opts *o, struct errbuf *e)
{
    memset(e, 0, sizeof *e);
    for (int i = 0; i < o->n_listen; i++)
        if (!endpoint_is_local(o->listen[i]) && !o->keys[0] && !o->insecure)
            problem(e, ERR_DENIED, "%s can be reached from other machines: give --keys DIR (didact keygen makes it), or --insecure",
                    o->listen[i]);
    if (o->http_addr[0] && strncmp(o->http_addr, "127.", 4) != 0 && !o->http_public)
        problem(e, ERR_DENIED, "HTTP on %s:%u has no authentication and can be reached from other machines: bind 127.0.0.1, or give "
                "--http-public", o->http_addr, o->http_port);
    return e->code ? -e->code : 0;
}

void opts_print(const struct opts *o)
{
    printf("dir=%s\n", o->dir);
    for (int i = 0; i < o->n_listen; i++)
        printf("listen=%s\n", o->listen[i]);
    if (o->http_addr[0])
        printf("http=%s:%u\n", o->http_addr, o->http_port);
    else
        printf("http=off\n");
    static const char *const levels[] = { "debug", "info", "warn", "error" };
    printf("keys=%s\ninsecure=%s\nhttp-public=%s\nhttp-token=%s\nheartbeat-ms=%u\nlease-ms=%u\nlog-level=%s\n", o->keys, o->insecure ? "yes" : "no",
           o->http_public ? "yes" : "no", o->http_token, o->heartbeat_ms, o->lease_ms, levels[o->log_level]);
}

void opts_usage(void)
{
    puts("didactd --dir /var/lib/didact --listen tcp://127.0.0.1:7707\n\n"
         "The coordinator: keeps jobs and results, gives work to didact-worker, answers didact and browsers.\n"
         "DIR/endpoints.json tells where it listens once it is ready. Each option can also be given as the variable in brackets.\n");
    for (size_t i = 0; i < N_OPTS; i++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s", table[i].flag, table[i].arg ? table[i].arg : "");
        printf("  %-22s%s%s%s%s\n", left, table[i].help, table[i].env ? " [" : "", table[i].env ? table[i].env : "",
               table[i].env ? "]" : "");
    }
    puts("\nExit: 0 stopped by a signal; 64 usage; 65 damaged or newer database; 66 missing key; 69 address in use; 74 I/O;\n"
         "75 another didactd uses DIR; 77 refused: reachable from other machines without keys.");
}
