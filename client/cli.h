/* cli.h - the verb table and what a handler is given. A verb is a row: name, arguments, help with an example first,
 * handler, flags; parsing, help, completion and the nearest-name hints all read the same rows.
 * Results go to stdout, talk to stderr. Thread: one. */
#ifndef DIDACT_CLIENT_CLI_H
#define DIDACT_CLIENT_CLI_H

#include "common/err.h"

#include <stdint.h>

struct cli;
struct conn;

struct flag {
    const char *name;    /* "follow", given as --follow */
    char        letter;  /* 'f' for -f; 0: none */
    const char *meta;    /* name of its value in help; NULL: takes none */
    const char *about;
    bool        many;    /* may be repeated */
};

struct verb {
    const char *name;    /* "submit", "dataset import" */
    const char *group;   /* heading in the list of verbs; those of one stand together */
    const char *args;    /* "FILE", "JOB [NAME]", "" */
    int         min_args, max_args;
    const char *about;   /* one line */
    const char *example; /* one command a line, each with what it does */
    const struct flag *flags; /* ends with a NULL name; NULL: none of its own */
    /* 0 or a positive exit status; or -ERR_X with c->e filled. */
    int       (*run)(struct cli *c);
};

#define CLI_MAX_GIVEN 256
#define CLI_MAX_ARGS  16

struct cli {
    const struct verb *verb;
    const char    *group;   /* "dataset --help": the first word of several verbs */
    struct { const struct flag *flag; const char *value; } given[CLI_MAX_GIVEN];
    int            n_given;
    const char    *arg[CLI_MAX_ARGS];
    int            n_args;
    bool           json, help;
    struct conn   *conn;    /* owned; opened by cli_conn */
    struct errbuf *e;       /* borrowed */
};

extern const struct verb cli_verbs[];   /* ends with a NULL name */
extern const struct flag cli_globals[]; /* flags of every verb */

/* Find the verb and take its flags and arguments apart; argv[0] is the program. -ERR_USAGE names the nearest verb or flag.
 * Without a verb c->verb is NULL. */
int  cli_parse(struct cli *c, int argc, char *const *argv, struct errbuf *e);
int  cli_main(int argc, char *const *argv);
void cli_fini(struct cli *c);

bool        cli_has(const struct cli *c, const char *flag);
const char *cli_str(const struct cli *c, const char *flag, const char *otherwise); /* the last one given */
/* Values as numbers; -ERR_USAGE names flag and range. Absent: *out keeps what it has. */
int cli_int(const struct cli *c, const char *flag, int64_t least, int64_t most, int64_t *out);
int cli_num(const struct cli *c, const char *flag, double least, double most, double *out);

/* The connection of this command, opened on first use. */
int cli_conn(struct cli *c, struct conn **out);
/* Ask "ACTION? [y/N]" on the terminal unless --yes; -ERR_USAGE where nobody can answer, -ERR_CANCELLED on no. */
int cli_confirm(struct cli *c, const char *question);

/* The name closest to `word` among names[0..n) (a slip, or a word cut short), or NULL when none is near. */
const char *cli_nearest(const char *word, const char *const *names, int n);

void cli_help_verb(const struct verb *v);
bool cli_help_named(const char *name); /* the verb, or all that begin with this word; false: none does */
void cli_help_all(void);
int  cli_run_help(struct cli *c);
int  cli_run_version(struct cli *c);
int  cli_run_completion(struct cli *c);

#endif
