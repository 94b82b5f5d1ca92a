/* cli.c - from argv to a row of the verb table, its flags and arguments. Flags may stand anywhere after the verb. */
#include "client/cli.h"

#include "client/conn.h"
#include "client/print.h"
#include "common/suggest.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *cli_nearest(const char *word, const char *const *names, int n)
{
    const char *near = suggest(word, names, n);
    size_t len = strlen(word);
    for (int i = 0; !near && i < n; i++) /* a word cut short: "sub" for "submit" */
        if (len >= 2 && strncmp(names[i], word, len) == 0)
            near = names[i];
    return near;
}

/* ---- parsing ---- */

/* How many words of argv name verb v; 0: not this one. */
static int verb_words(const struct verb *v, int argc, char *const *argv)
{
    const char *space = strchr(v->name, ' ');
    if (!space)
        return argc >= 1 && strcmp(argv[0], v->name) == 0 ? 1 : 0;
    size_t first = (size_t)(space - v->name);
    return argc >= 2 && strlen(argv[0]) == first && strncmp(argv[0], v->name, first) == 0 && strcmp(argv[1], space + 1) == 0 ? 2 : 0;
}

/* Not a verb; the first word of some, where their help is asked for. */
static int unknown_verb(struct cli *c, int argc, char *const *argv, struct errbuf *e)
{
    enum { MOST = 128 };
    const char *names[MOST];
    char word[128], group[1024] = "";
    int  n = 0;
    size_t len = strlen(argv[0]), used = 0;
    for (const struct verb *v = cli_verbs; v->name && n < MOST; v++) {
        names[n++] = v->name;
        if (strncmp(v->name, argv[0], len) == 0 && v->name[len] == ' ' && used < sizeof group)
            used += (size_t)snprintf(group + used, sizeof group - used, "%s%s", used ? ", " : "", v->name + len + 1);
    }
    bool two = argc > 1 && argv[1][0] != '-';
    if (group[0] && argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        c->group = argv[0];
        return 0;
    }
    if (group[0] && !two)
        return err_set(e, ERR_USAGE, "didact %s needs one of: %s", argv[0], group);
    snprintf(word, sizeof word, "%s%s%s", argv[0], group[0] ? " " : "", group[0] ? argv[1] : "");
    const char *near = cli_nearest(word, names, n);
    if (near)
        return err_set(e, ERR_USAGE, "there is no verb '%s'; did you mean '%s'?", word, near);
    return err_set(e, ERR_USAGE, "there is no verb '%s'; didact help lists them", word);
}

static const struct flag *find_flag(const struct verb *v, const char *name, size_t len, char letter)
{
    const struct flag *lists[] = { v ? v->flags : NULL, cli_globals };
    for (int l = 0; l < 2; l++)
        for (const struct flag *f = lists[l]; f && f->name; f++)
            if (letter ? f->letter == letter : strlen(f->name) == len && strncmp(f->name, name, len) == 0)
                return f;
    return NULL;
}

static int unknown_flag(const struct verb *v, const char *word, struct errbuf *e)
{
    enum { MOST = 96 };
    const char *names[MOST];
    char bare[80];
    int  n = 0;
    const struct flag *lists[] = { v ? v->flags : NULL, cli_globals };
    for (int l = 0; l < 2; l++)
        for (const struct flag *f = lists[l]; f && f->name && n < MOST; f++)
            names[n++] = f->name;
    if (!v)
        return err_set(e, ERR_USAGE, "no flag %s may stand before the verb", word);
    snprintf(bare, sizeof bare, "%s", word + strspn(word, "-"));
    bare[strcspn(bare, "=")] = 0;
    const char *near = cli_nearest(bare, names, n);
    if (near)
        return err_set(e, ERR_USAGE, "there is no flag %s; did you mean --%s?", word, near);
    return err_set(e, ERR_USAGE, "there is no flag %s", word);
}

static int give(struct cli *c, const struct flag *f, const char *value)
{
    if (c->n_given == CLI_MAX_GIVEN)
        return err_set(c->e, ERR_USAGE, "more than %d flags", CLI_MAX_GIVEN);
    if (!f->many && cli_has(c, f->name))
        return err_set(c->e, ERR_USAGE, "--%s is given twice", f->name);
    c->given[c->n_given].flag = f;
    c->given[c->n_given++].value = value;
    c->json |= strcmp(f->name, "json") == 0;
    c->help |= strcmp(f->name, "help") == 0;
    return 0;
}

/* One word that starts with '-'; *used is how many words of argv it took. */
static int parse_flag(struct cli *c, int argc, char *const *argv, int *used)
{
    const char *word = argv[0], *value = NULL;
    const struct flag *f;
    *used = 1;
    if (word[1] == '-') {
        const char *eq = strchr(word, '=');
        f = find_flag(c->verb, word + 2, eq ? (size_t)(eq - word - 2) : strlen(word + 2), 0);
        value = eq ? eq + 1 : NULL;
    } else {
        f = find_flag(c->verb, NULL, 0, word[1]);
        value = word[2] ? word + 2 : NULL;
        if (f && !f->meta && value)
            return err_set(c->e, ERR_USAGE, "-%c takes no value (write single-letter flags apart)", word[1]);
    }
    if (!f)
        return unknown_flag(c->verb, word, c->e);
    if (!f->meta && value)
        return err_set(c->e, ERR_USAGE, "--%s takes no value", f->name);
    if (f->meta && !value) {
        if (argc < 2)
            return err_set(c->e, ERR_USAGE, "--%s needs a value: --%s %s", f->name, f->name, f->meta);
        value = argv[1];
        *used = 2;
    }
    return give(c, f, value);
}

static int check_args(const struct cli *c)
{
    const struct verb *v = c->verb;
    if (c->n_args < v->min_args)
        return err_set(c->e, ERR_USAGE, "needs %s", v->args);
    if (c->n_args > v->max_args)
        return err_set(c->e, ERR_USAGE, "takes %s; '%s' is too much", v->max_args ? v->args : "no argument",
                       c->arg[v->max_args]);
    for (int i = 0; i < c->n_args; i++) /* "jobs//results" would ask for something else */
        if (!*c->arg[i])
            return err_set(c->e, ERR_USAGE, "takes %s; argument %d is empty", v->args, i + 1);
    return 0;
}

int cli_parse(struct cli *c, int argc, char *const *argv, struct errbuf *e)
{
    *c = (struct cli){ .e = e };
    argc--, argv++;
    int words = 0, skip = 0, rc = 0;
    while (rc == 0 && argc > 0 && argv[0][0] == '-' && argv[0][1]) { /* flags of every verb may stand before it */
        rc = parse_flag(c, argc, argv, &skip);
        argc -= skip, argv += skip;
    }
    if (rc < 0 || argc == 0)
        return rc;
    for (const struct verb *v = cli_verbs; v->name && !c->verb; v++)
        if ((words = verb_words(v, argc, argv)))
            c->verb = v;
    if (!c->verb)
        return unknown_verb(c, argc, argv, e);
    bool flags = true;
    for (int i = words, used = 1; i < argc; i += used, used = 1) {
        if (flags && strcmp(argv[i], "--") == 0)
            flags = false;
        else if (flags && argv[i][0] == '-' && argv[i][1])
            rc = parse_flag(c, argc - i, argv + i, &used);
        else if (c->n_args < CLI_MAX_ARGS)
            c->arg[c->n_args++] = argv[i];
        else
            rc = err_set(e, ERR_USAGE, "more than %d arguments", CLI_MAX_ARGS);
        if (rc < 0)
            return rc;
    }
    return c->help ? 0 : check_args(c);
}

/* ---- values ---- */

bool cli_has(const struct cli *c, const char *flag)
{
    return cli_str(c, flag, NULL) != NULL;
}

const char *cli_str(const struct cli *c, const char *flag, const char *otherwise)
{
    for (int i = c->n_given - 1; i >= 0; i--)
        if (strcmp(c->given[i].flag->name, flag) == 0)
            return c->given[i].value ? c->given[i].value : "";
    return otherwise;
}

int cli_int(const struct cli *c, const char *flag, int64_t least, int64_t most, int64_t *out)
{
    const char *s = cli_str(c, flag, NULL);
    if (!s)
        return 0;
    char *end;
    errno = 0;
    long long v = strtoll(s, &end, 10);
    if (errno || end == s || *end || v < least || v > most)
        return err_set(c->e, ERR_USAGE, "--%s must be a whole number from %lld to %lld, not '%s'", flag, (long long)least,
                       (long long)most, s);
    *out = v;
    return 0;
}

int cli_num(const struct cli *c, const char *flag, double least, double most, double *out)
{
    const char *s = cli_str(c, flag, NULL);
    if (!s)
        return 0;
    char  *end;
    double v = strtod(s, &end);
    if (end == s || *end || !isfinite(v) || v < least || v > most)
        return err_set(c->e, ERR_USAGE, "--%s must be a number from %g to %g, not '%s'", flag, least, most, s);
    *out = v;
    return 0;
}

int cli_confirm(struct cli *c, const char *question)
{
    char answer[16];
    if (cli_has(c, "yes"))
        return 0;
    if (!isatty(STDIN_FILENO))
        return err_set(c->e, ERR_USAGE, "%s? Nobody is there to ask: give --yes", question);
    fprintf(stderr, "%s? [y/N] ", question);
    if (!fgets(answer, sizeof answer, stdin) || (answer[0] != 'y' && answer[0] != 'Y'))
        return err_set(c->e, ERR_CANCELLED, "nothing was changed");
    return 0;
}

static void print_note(const char *text) { fprintf(stderr, "note: %s\n", text); }

int cli_conn(struct cli *c, struct conn **out)
{
    if (!c->conn) {
        struct conn_cfg cfg = {
            .endpoint = cli_str(c, "connect", NULL),
            .dir = cli_str(c, "dir", NULL),
            .key_file = cli_str(c, "key", NULL),
            .server_key = cli_str(c, "server-key", NULL),
            .insecure = cli_has(c, "insecure"),
        };
        double timeout_s = CONN_TIMEOUT_S;
        int rc = cli_num(c, "timeout", 0.1, 86400, &timeout_s);
        if (rc < 0)
            return rc;
        cfg.timeout_ms = (int)(timeout_s * 1000);
        rc = conn_open(&cfg, &c->conn, c->e);
        if (rc < 0)
            return rc;
        conn_on_note(c->conn, print_note);
    }
    *out = c->conn;
    return 0;
}

void cli_fini(struct cli *c)
{
    conn_close(c->conn);
    c->conn = NULL;
}

/* ---- running ---- */

static int report(const struct cli *c, int rc)
{
    const char *what = err_message(c->e, rc);
    fprintf(stderr, "didact%s%s: %s\n", c->verb ? " " : "", c->verb ? c->verb->name : "", what);
    if (rc == -ERR_USAGE && c->verb)
        fprintf(stderr, "Try: didact %s --help\n", c->verb->name);
    if (c->json)
        print_json_error(stdout, rc, what);
    return err_exit_status(rc);
}

int cli_main(int argc, char *const *argv)
{
    struct errbuf e = { 0 };
    struct cli    c;
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        cli_help_all();
        return 0;
    }
    if (argc >= 2 && strcmp(argv[1], "--version") == 0)
        return cli_run_version(NULL);
    int rc = cli_parse(&c, argc, argv, &e);
    if (rc == 0 && c.group) {
        cli_help_named(c.group);
        return 0;
    }
    if (rc == 0 && !c.verb) {
        cli_help_all();
        return err_exit_status(ERR_USAGE);
    }
    if (rc == 0 && c.help)
        cli_help_verb(c.verb);
    else if (rc == 0)
        rc = c.verb->run(&c);
    if (rc < 0)
        rc = report(&c, rc);
    cli_fini(&c);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "didact: cannot write the output: %s\n", strerror(errno));
        return rc ? rc : err_exit_status(ERR_IO);
    }
    return rc;
}
