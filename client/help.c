/* help.c - help, version and shell completion, all from the verb table. */
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
           "  didact demo                      a whole search on real images, ten minutes\n"
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

static void put_roff(const char *s)
{
    for (bool start = true; *s; s++) {
        if (*s == '\\')
            fputs("\\e", stdout);
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
        printf(" %s\n", v->args);
        put_roff(v->about);
        printf(".\n.PP\n.nf\n");
        put_roff(v->example);
        printf("\n.fi\n");
        man_flags(v->flags);
    }
    printf(".SH EXIT STATUS\n0 ok, 1 the search or trial failed, 64 usage, 65 bad input, 66 no such thing, 69 unreachable, 70 a bug in\n"
           "Didact, 74 input or output failed, 75 try again, 77 not allowed.\n");
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
    bool any = false;
    size_t len = strlen(name);
    for (const struct verb *v = cli_verbs; v->name; v++)
        if (strncmp(v->name, name, len) == 0 && (v->name[len] == 0 || v->name[len] == ' ')) {
            if (any)
                printf("\n");
            any = true;
            cli_help_verb(v);
        }
    return any ? 0 : err_set(c->e, ERR_USAGE, "there is no verb '%s'; didact help lists them", name);
}

int cli_run_version(struct cli *c)
{
    if (c && c->json)
        printf("{\"version\": \"%s\"}\n", DIDACT_VERSION);
    else
        printf("didact %s\n", DIDACT_VERSION);
    return 0;
}

/* ---- completion ---- */

/* The verb's first word, where it is its first row. */
static bool first_of_group(const struct verb *v, char *word, size_t cap)
{
    snprintf(word, cap, "%.*s", (int)strcspn(v->name, " "), v->name);
    if (v == cli_verbs)
        return true;
    size_t n = strlen(word);
    return strncmp(v[-1].name, word, n) != 0 || (v[-1].name[n] != ' ' && v[-1].name[n] != 0);
}

static void print_flag_words(const struct verb *v)
{
    const struct flag *lists[] = { v->flags, cli_globals };
    for (int l = 0; l < 2; l++)
        for (const struct flag *f = lists[l]; f && f->name; f++)
            printf(" --%s", f->name);
}

static void print_bash(void)
{
    char word[64];
    printf("# bash completion of didact; made by `didact completion bash`\n"
           "_didact()\n{\n"
           "    local cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} sub=${COMP_WORDS[2]} words=\"\" key\n"
           "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"");
    for (const struct verb *v = cli_verbs; v->name; v++)
        if (first_of_group(v, word, sizeof word))
            printf("%s ", word);
    printf("\"\n    else\n        case \"$verb\" in\n");
    for (const struct verb *v = cli_verbs; v->name; v++) {
        if (!strchr(v->name, ' ') || !first_of_group(v, word, sizeof word))
            continue;
        printf("        %s) [ \"$COMP_CWORD\" -eq 2 ] && words=\"", word);
        size_t n = strlen(word);
        for (const struct verb *s = v; s->name && strncmp(s->name, word, n) == 0 && s->name[n] == ' '; s++)
            printf("%s ", s->name + n + 1);
        printf("\" ;;\n");
    }
    printf("        esac\n        if [ -z \"$words\" ]; then\n            case \"$cur\" in\n            -*)\n"
           "                for key in \"$verb $sub\" \"$verb\"; do\n                    case \"$key\" in\n");
    for (const struct verb *v = cli_verbs; v->name; v++) {
        printf("                    \"%s\") words=\"", v->name);
        print_flag_words(v);
        printf("\" ;;\n");
    }
    printf("                    esac\n                    [ -n \"$words\" ] && break\n                done ;;\n"
           "            *) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n            esac\n        fi\n    fi\n"
           "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
           "complete -o filenames -F _didact didact\n");
}

static void print_quoted(const char *s) /* inside '...' of zsh; ':' separates name and text there */
{
    for (; *s; s++) {
        if (*s == '\'')
            printf("'\\''");
        else if (*s == ':' || *s == '\\')
            printf("\\%c", *s);
        else
            putchar(*s);
    }
}

/* One `case` arm a verb; the two-word key is tried before the one-word key. */
static void print_zsh(void)
{
    char word[64];
    printf("#compdef didact\n# zsh completion of didact; made by `didact completion zsh`\n_didact()\n{\n"
           "    local -a list\n    local key\n    if (( CURRENT == 2 )); then\n        list=(\n");
    for (const struct verb *v = cli_verbs; v->name; v++)
        if (first_of_group(v, word, sizeof word)) {
            printf("            '%s:", word);
            print_quoted(strchr(v->name, ' ') ? v->group : v->about);
            printf("'\n");
        }
    printf("        )\n        _describe verb list\n        return\n    fi\n    if (( CURRENT == 3 )); then\n        case \"$words[2]\" in\n");
    for (const struct verb *v = cli_verbs; v->name; v++) {
        if (!strchr(v->name, ' ') || !first_of_group(v, word, sizeof word))
            continue;
        printf("        %s) list=(\n", word);
        size_t n = strlen(word);
        for (const struct verb *s = v; s->name && strncmp(s->name, word, n) == 0 && s->name[n] == ' '; s++) {
            printf("            '%s:", s->name + n + 1);
            print_quoted(s->about);
            printf("'\n");
        }
        printf("            )\n            _describe verb list\n            return ;;\n");
    }
    printf("        esac\n    fi\n    if [[ \"$words[CURRENT]\" != -* ]]; then\n        _files\n        return\n    fi\n"
           "    for key in \"$words[2] $words[3]\" \"$words[2]\"; do\n        case \"$key\" in\n");
    for (const struct verb *v = cli_verbs; v->name; v++) {
        printf("        '%s') list=(", v->name);
        print_flag_words(v);
        printf(" ) ;;\n");
    }
    printf("        esac\n        (( $#list )) && break\n    done\n    compadd -- $list\n}\n"
           "if [ \"$funcstack[1]\" = _didact ]; then\n    _didact \"$@\"\nelse\n    compdef _didact didact\nfi\n");
}

int cli_run_completion(struct cli *c)
{
    if (strcmp(c->arg[0], "bash") == 0)
        print_bash();
    else if (strcmp(c->arg[0], "zsh") == 0)
        print_zsh();
    else
        return err_set(c->e, ERR_USAGE, "completion is for bash or zsh, not '%s'", c->arg[0]);
    return 0;
}
