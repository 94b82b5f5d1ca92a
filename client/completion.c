/* completion.c - what Tab offers in bash, zsh and fish: verbs, their flags, jobs. Written from the verb table each time, so that a new
 * row is there at once; only the numbers and names of jobs are asked of the coordinator, with a second's patience. */
#include "client/cli.h"

#include <stdio.h>
#include <string.h>

/* The verb's first word, where it is its first row. */
static bool first_of_group(const struct verb *v, char *word, size_t cap)
{
    snprintf(word, cap, "%.*s", (int)strcspn(v->name, " "), v->name);
    if (v == cli_verbs)
        return true;
    size_t n = strlen(word);
    return strncmp(v[-1].name, word, n) != 0 || (v[-1].name[n] != ' ' && v[-1].name[n] != 0);
}

static bool takes_job(const struct verb *v)
{
    return strncmp(v->args, "JOB", 3) == 0 || strcmp(v->args, "A B") == 0;
}

static void print_flag_words(const struct verb *v)
{
    const struct flag *lists[] = { v->flags, cli_globals };
    for (int l = 0; l < 2; l++)
        for (const struct flag *f = lists[l]; f && f->name; f++)
            printf(" --%s", f->name);
}

static void print_job_verbs(const char *between)
{
    bool any = false;
    for (const struct verb *v = cli_verbs; v->name; v++)
        if (takes_job(v)) {
            printf("%s%s", any ? between : "", v->name);
            any = true;
        }
}

#define JOBS_FUNCTION(columns) "_didact_jobs()\n{\n    didact jobs --limit 50 --timeout 1 2>/dev/null | sed 1d | awk '{ print " columns " }'\n}\n"

/* ---- bash ---- */

static void print_bash(void)
{
    char word[64];
    printf("# bash completion of didact; made by `didact completion bash`\n"
           JOBS_FUNCTION("$1; print $2")
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
           "            *)\n                case \"$verb\" in\n                ");
    print_job_verbs("|");
    printf(") words=$(_didact_jobs) ;;\n                *) COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n                esac ;;\n"
           "            esac\n        fi\n    fi\n"
           "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n}\n"
           "complete -o filenames -F _didact didact\n");
}

/* ---- zsh ---- */

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
    printf("#compdef didact\n# zsh completion of didact; made by `didact completion zsh`\n"
           JOBS_FUNCTION("$1; print $2") "_didact()\n{\n"
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
    printf("        esac\n    fi\n    if [[ \"$words[CURRENT]\" != -* ]]; then\n        case \"$words[2]\" in\n        ");
    print_job_verbs("|");
    printf(") compadd -- ${(f)\"$(_didact_jobs)\"} ;;\n        *) _files ;;\n        esac\n        return\n    fi\n"
           "    for key in \"$words[2] $words[3]\" \"$words[2]\"; do\n        case \"$key\" in\n");
    for (const struct verb *v = cli_verbs; v->name; v++) {
        printf("        '%s') list=(", v->name);
        print_flag_words(v);
        printf(" ) ;;\n");
    }
    printf("        esac\n        (( $#list )) && break\n    done\n    compadd -- $list\n}\n"
           "if [ \"$funcstack[1]\" = _didact ]; then\n    _didact \"$@\"\nelse\n    compdef _didact didact\nfi\n");
}

/* ---- fish ---- */

static void print_fish_quoted(const char *s) /* inside '...' */
{
    for (; *s; s++)
        printf(*s == '\'' || *s == '\\' ? "\\%c" : "%c", *s);
}

static void print_fish_flags(const char *in, const struct flag *flags)
{
    for (const struct flag *f = flags; f && f->name; f++) {
        printf("complete -c didact%s -l %s", in, f->name);
        if (f->letter)
            printf(" -s %c", f->letter);
        printf("%s -d '", f->meta ? " -r" : "");
        print_fish_quoted(f->about);
        printf("'\n");
    }
}

static void print_fish_verb(const char *at, const char *word, const char *about)
{
    printf("complete -c didact -n '__didact_at%s' -f -a %s -d '", at, word);
    print_fish_quoted(about);
    printf("'\n");
}

static void print_fish(void)
{
    char word[64], at[80];
    printf("# fish completion of didact; made by `didact completion fish`\n"
           "function __didact_words\n    for w in (commandline -opc)[2..]\n        string match -q -- '-*' $w; or echo $w\n    end\nend\n"
           "function __didact_at # nothing but these words so far\n    set -l words (__didact_words)\n    test \"$words\" = \"$argv\"\nend\n"
           "function __didact_in # these words come first\n    set -l words (__didact_words)\n    set -l n (count $argv)\n"
           "    test (count $words) -ge $n; and test \"$words[1..$n]\" = \"$argv\"\nend\n"
           "function __didact_jobs\n    didact jobs --limit 50 --timeout 1 2>/dev/null | sed 1d | awk '{ print $1 \"\\t\" $2 }'\nend\n");
    for (const struct verb *v = cli_verbs; v->name; v++) {
        bool two = strchr(v->name, ' ') != NULL;
        if (first_of_group(v, word, sizeof word))
            print_fish_verb("", word, two ? v->group : v->about);
        snprintf(at, sizeof at, " %s", word);
        if (two)
            print_fish_verb(at, strchr(v->name, ' ') + 1, v->about);
        snprintf(at, sizeof at, " -n '__didact_in %s'", v->name);
        print_fish_flags(at, v->flags);
        if (takes_job(v))
            printf("complete -c didact%s -f -a '(__didact_jobs)'\n", at);
    }
    print_fish_flags("", cli_globals);
}

/* ---- the verb ---- */

int cli_run_completion(struct cli *c)
{
    static const struct { const char *shell; void (*print)(void); } shells[] = { { "bash", print_bash }, { "zsh", print_zsh }, { "fish", print_fish } };
    for (size_t i = 0; i < sizeof shells / sizeof shells[0]; i++)
        if (strcmp(c->arg[0], shells[i].shell) == 0) {
            shells[i].print();
            return 0;
        }
    return err_set(c->e, ERR_USAGE, "completion is for bash, zsh or fish, not '%s'", c->arg[0]);
}
