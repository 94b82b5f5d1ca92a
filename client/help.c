/* help.c - help, version and the manual page, all from the verb table. */
#include "client/cli.h"

#include "client/print.h"

#include <stdio.h>
#include <string.h>

static void print_flags(const struct flag *flags)
{
    for (const struct flag *f = flags; f && f->name; f++) {
        char left[64];
        snprintf(left, sizeof left, "%s%c%s--%s%s%s", f->letter ? "-" : "  ", f->letter ? f->letter : ' ', f->letter ? ", " : " ",
                 f->name, f->meta ? " " : "", f->meta ? f->meta : "");
        printf("  %-26s %s%s\n", left, f->about, f->many ? " (may be repeated)" : "");
    }
}

void cli_help_verb(const struct verb *v)
{
    printf("Example:\n");
    for (const char *s = v->example; *s;) {
        size_t n = strcspn(s, "\n");
        printf("  %.*s\n", (int)n, s);
        s += n + (s[n] == '\n');
    }
    printf("\nUsage: didact %s%s%s [flags]\n%s.\n", v->name, v->args[0] ? " " : "", v->args, v->about);
    if (v->flags) {
        printf("\nFlags:\n");
        print_flags(v->flags);
    }
    printf("\nFlags of every verb:\n");
    print_flags(cli_globals);
    printf("\nExit status: 0 ok, 1 the search or trial failed, 64 usage, 65 bad input, 66 no such thing, 69 unreachable,\n"
           "70 a bug in Didact, 74 input or output failed, 75 try again, 77 not allowed.\n");
}

void cli_help_all(void)
{
    printf("Example:\n"
           "  didact demo                      a whole search on real images, five to ten minutes\n"
           "  didact local start               a coordinator and workers on this machine\n"
           "  didact submit job.yaml -f        hand in a job and follow it\n"
           "  didact results 3                 what came out\n\n"
           "Usage: didact VERB [arguments] [flags]; didact VERB --help says more.\n"
           "A JOB is its number or a unique beginning of its name. Every verb has --json.\n");
    const char *group = "";
    for (const struct verb *v = cli_verbs; v->name; v++) {
        char left[64];
        if (strcmp(group, v->group) != 0)
            printf("\n%s\n", v->group);
        group = v->group;
        snprintf(left, sizeof left, "%s %s", v->name, v->args);
        printf("  %-32s %s\n", left, v->about);
    }
}

/* ---- the manual page, for `didact help --man | man -l -` and packagers ---- */

/* One UTF-8 character that is not ASCII, as troff knows it; returns its last byte. */
static const char *put_roff_wide(const char *s)
{
    unsigned c = (unsigned char)*s, n = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    c &= 0x3fu >> n;
    for (; n && s[1]; n--)
        c = c << 6 | ((unsigned char)*++s & 0x3f);
    printf("\\[u%04X]", c);
    return s;
}

static void put_roff(const char *s)
{
    for (bool start = true; *s; s++) {
        if (*s == '\\')
            fputs("\\e", stdout);
        else if ((unsigned char)*s >= 0x80)
            s = put_roff_wide(s);
        else if (*s == '-')
            fputs("\\-", stdout);
        else if ((*s == '.' || *s == '\'') && start)
            printf("\\&%c", *s);
        else
            putchar(*s);
        start = *s == '\n';
    }
}

static void man_flags(const struct flag *flags)
{
    for (const struct flag *f = flags; f && f->name; f++) {
        printf(".TP\n.B ");
        if (f->letter)
            printf("\\-%c, ", f->letter);
        printf("\\-\\-");
        put_roff(f->name);
        printf("%s%s\n", f->meta ? " " : "", f->meta ? f->meta : "");
        put_roff(f->about);
        printf("\n");
    }
}

static void print_man(void)
{
    printf(".TH DIDACT 1 \"\" \"didact %s\"\n.SH NAME\ndidact \\- search network architectures with learned training data\n"
           ".SH SYNOPSIS\n.B didact\n.I VERB\n[arguments] [flags]\n.SH DESCRIPTION\n"
           "Speaks to a coordinator (didactd): submits jobs, follows them, fetches results. A JOB is its number or a unique\n"
           "beginning of its name. Results go to standard output, everything else to standard error.\n.SH FLAGS OF EVERY VERB\n",
           DIDACT_VERSION);
    man_flags(cli_globals);
    printf(".SH VERBS\n");
    for (const struct verb *v = cli_verbs; v->name; v++) {
        printf(".SS ");
        put_roff(v->name);
        putchar(' ');
        put_roff(v->args);
        putchar('\n');
        put_roff(v->about);
        printf(".\n.PP\n.nf\n");
        put_roff(v->example);
        printf("\n.fi\n");
        man_flags(v->flags);
    }
    printf(".SH EXIT STATUS\n0 ok, 1 the search or trial failed, 64 usage, 65 bad input, 66 no such thing, 69 unreachable, 70 a bug in\n"
           "Didact, 74 input or output failed, 75 try again, 77 not allowed.\n");
}

bool cli_help_named(const char *name)
{
    bool any = false;
    size_t len = strlen(name);
    for (const struct verb *v = cli_verbs; v->name; v++)
        if (strncmp(v->name, name, len) == 0 && (v->name[len] == 0 || v->name[len] == ' ')) {
            if (any)
                printf("\n");
            any = true;
            cli_help_verb(v);
        }
    return any;
}

int cli_run_help(struct cli *c)
{
    char name[128] = "";
    if (cli_has(c, "man")) {
        print_man();
        return 0;
    }
    if (c->n_args == 0) {
        cli_help_all();
        return 0;
    }
    for (int i = 0; i < c->n_args; i++) {
        size_t n = strlen(name);
        snprintf(name + n, sizeof name - n, "%s%s", i ? " " : "", c->arg[i]);
    }
    return cli_help_named(name) ? 0 : err_set(c->e, ERR_USAGE, "there is no verb '%s'; didact help lists them", name);
}

int cli_run_version(struct cli *c)
{
    if (c && c->json)
        printf("{\"version\": \"%s\"}\n", DIDACT_VERSION);
    else
        printf("didact %s\n", DIDACT_VERSION);
    return 0;
}
