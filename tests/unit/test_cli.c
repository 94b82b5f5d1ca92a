/* The command line: taking it apart, what it says about mistakes, the verb table itself, and what people read. */
#include "client/cli.h"
#include "client/print.h"
#include "client/submit.h"
#include "client/verbs.h"
#include "common/jobfile.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct errbuf e;

/* Words separated by spaces, as a shell would hand them over. */
static int parse(struct cli *c, const char *line)
{
    static char words[512];
    static char *argv[64];
    int argc = 0;
    snprintf(words, sizeof words, "%s", line);
    for (char *p = strtok(words, " "); p && argc < 63; p = strtok(NULL, " "))
        argv[argc++] = p;
    argv[argc] = NULL;
    e = (struct errbuf){ 0 };
    return cli_parse(c, argc, argv, &e);
}

static void says(const char *line, const char *part)
{
    struct cli c;
    assert_int_equal(parse(&c, line), -ERR_USAGE);
    if (!strstr(e.text, part))
        fail_msg("'%s' says '%s', not '%s'", line, e.text, part);
}

static void flags_and_arguments_stand_in_any_order(void **state)
{
    (void)state;
    struct cli c;
    assert_int_equal(parse(&c, "didact submit --set a=1 job.yaml -f --set b=2"), 0);
    assert_string_equal(c.verb->name, "submit");
    assert_int_equal(c.n_args, 1);
    assert_string_equal(c.arg[0], "job.yaml");
    assert_true(cli_has(&c, "follow"));
    assert_false(cli_has(&c, "dry-run"));
    assert_int_equal(c.n_given, 3);
    assert_string_equal(cli_str(&c, "set", NULL), "b=2");
}

static void flags_of_every_verb_may_stand_before_it(void **state)
{
    (void)state;
    struct cli c;
    assert_int_equal(parse(&c, "didact --connect ipc:///x --json jobs"), 0);
    assert_string_equal(c.verb->name, "jobs");
    assert_string_equal(cli_str(&c, "connect", ""), "ipc:///x");
    assert_true(c.json);
    says("didact --follow submit x", "may stand before the verb");
}

static void values_are_taken_in_each_usual_way(void **state)
{
    (void)state;
    struct cli c;
    static const char *const lines[] = { "didact export 4 --output best.onnx", "didact export 4 --output=best.onnx",
                                         "didact export 4 -o best.onnx", "didact export 4 -obest.onnx" };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        assert_int_equal(parse(&c, lines[i]), 0);
        assert_string_equal(cli_str(&c, "output", ""), "best.onnx");
        assert_string_equal(c.arg[0], "4");
    }
    assert_int_equal(parse(&c, "didact show -- --odd"), 0);
    assert_string_equal(c.arg[0], "--odd");
    assert_int_equal(parse(&c, "didact submit -"), 0);
    assert_string_equal(c.arg[0], "-");
}

static void a_verb_of_two_words_is_one_verb(void **state)
{
    (void)state;
    struct cli c;
    assert_int_equal(parse(&c, "didact dataset import ./pics --name pics"), 0);
    assert_string_equal(c.verb->name, "dataset import");
    assert_int_equal(c.n_args, 1);
}

static void mistakes_name_the_nearest(void **state)
{
    (void)state;
    says("didact sumbit", "did you mean 'submit'");
    says("didact resluts 3", "did you mean 'results'");
    says("didact dataset imprt x", "did you mean 'dataset import'");
    says("didact dataset", "import, list, show");
    says("didact frobnicate", "didact help lists them");
    says("didact submit x --folow", "did you mean --follow");
    says("didact jobs --jsno", "did you mean --json");
    says("didact jobs --stat=running", "did you mean --state");
    says("didact jobs --zzzzzz", "no flag --zzzzzz");
}

static void what_is_missing_or_too_much_is_named(void **state)
{
    (void)state;
    says("didact submit", "FILE");
    says("didact show 1 2", "'2' is too much");
    says("didact jobs x", "no argument");
    says("didact jobs --state", "--state needs a value");
    says("didact submit x --follow=yes", "takes no value");
    says("didact jobs --limit 1 --limit 2", "twice");
}

static void verbs_of_a_group_stand_together(void **state)
{
    (void)state;
    for (const struct verb *v = cli_verbs; v->name && v[1].name; v++)
        for (const struct verb *w = v + 1; w->name && strcmp(v->group, v[1].group) != 0; w++)
            if (strcmp(w->group, v->group) == 0)
                fail_msg("%s stands apart from %s: the heading %s is printed twice", w->name, v->name, v->group);
}

static void an_empty_argument_is_refused_by_every_verb(void **state)
{
    (void)state;
    for (const struct verb *v = cli_verbs; v->name; v++) {
        char first[32], *argv[CLI_MAX_ARGS + 3] = { "didact", first };
        struct cli c;
        int n = 2;
        snprintf(first, sizeof first, "%s", v->name);
        char *space = strchr(first, ' ');
        if (space) {
            *space = 0;
            argv[n++] = space + 1;
        }
        for (int i = 0; i < v->min_args; i++)
            argv[n++] = i == v->min_args - 1 ? "" : "x";
        if (v->min_args == 0)
            continue;
        e = (struct errbuf){ 0 };
        assert_int_equal(cli_parse(&c, n, argv, &e), -ERR_USAGE);
        assert_non_null(strstr(e.text, "is empty"));
    }
}

static void help_wants_no_arguments(void **state)
{
    (void)state;
    struct cli c;
    assert_int_equal(parse(&c, "didact submit --help"), 0);
    assert_true(c.help);
    assert_int_equal(parse(&c, "didact submit -h"), 0);
    assert_true(c.help);
}

static void numbers_are_checked_for_form_and_range(void **state)
{
    (void)state;
    struct cli c;
    int64_t n = 7;
    double x = 1.5;
    assert_int_equal(parse(&c, "didact jobs --limit 12 --timeout 2.5"), 0);
    assert_int_equal(cli_int(&c, "offset", 0, 10, &n), 0);
    assert_int_equal(n, 7);
    assert_int_equal(cli_int(&c, "limit", 1, 1000, &n), 0);
    assert_int_equal(n, 12);
    assert_int_equal(cli_num(&c, "timeout", 0, 10, &x), 0);
    assert_true(x == 2.5);
    assert_int_equal(cli_int(&c, "limit", 1, 11, &n), -ERR_USAGE);
    assert_non_null(strstr(e.text, "1 to 11"));
    static const char *const bad[] = { "12x", "x", "1e99999", "99999999999999999999", "nan" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char line[64];
        snprintf(line, sizeof line, "didact jobs --limit %s --timeout %s", bad[i], bad[i]);
        assert_int_equal(parse(&c, line), 0);
        assert_int_equal(cli_int(&c, "limit", 1, INT64_MAX, &n), -ERR_USAGE);
        if (i != 3)
            assert_int_equal(cli_num(&c, "timeout", 0, 1e9, &x), -ERR_USAGE);
    }
}

/* ---- the table of verbs ---- */

static void every_verb_is_explained_by_an_example(void **state)
{
    (void)state;
    for (const struct verb *v = cli_verbs; v->name; v++) {
        char command[80];
        snprintf(command, sizeof command, "didact %s", v->name);
        if (!strstr(v->example, command))
            fail_msg("the example of %s does not call it", v->name);
        assert_non_null(v->run);
        assert_true(strlen(v->about) > 5 && v->about[strlen(v->about) - 1] != '.');
        assert_true(v->min_args <= v->max_args && v->max_args <= CLI_MAX_ARGS);
        assert_true((v->args[0] != 0) == (v->max_args > 0));
    }
}

static bool is_global(const char *name, char letter)
{
    for (const struct flag *g = cli_globals; g->name; g++)
        if (strcmp(g->name, name) == 0 || (letter && g->letter == letter))
            return true;
    return false;
}

static void no_flag_stands_twice_in_a_verb(void **state)
{
    (void)state;
    for (const struct verb *v = cli_verbs; v->name; v++)
        for (const struct flag *f = v->flags; f && f->name; f++) {
            if (is_global(f->name, f->letter))
                fail_msg("%s: --%s is a flag of every verb", v->name, f->name);
            for (const struct flag *g = f + 1; g->name; g++)
                if (strcmp(f->name, g->name) == 0 || (f->letter && f->letter == g->letter))
                    fail_msg("%s: --%s stands twice", v->name, f->name);
        }
}

/* ---- job files from flags ---- */

static const struct submit_key *key_of(const char *flag)
{
    for (const struct submit_key *k = submit_keys; k->flag; k++)
        if (strcmp(k->flag, flag) == 0)
            return k;
    return NULL;
}

static void every_flag_that_makes_a_job_is_a_key_of_job_files(void **state)
{
    (void)state;
    static const char *const other[] = { "follow", "dry-run", "set", "print" };
    for (const struct verb *v = cli_verbs; v->name; v++) {
        int kind = job_kind_from(v->name);
        for (const struct flag *f = v->flags; kind >= 0 && f->name; f++) {
            char path[64];
            bool skip = false;
            for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
                skip |= strcmp(f->name, other[i]) == 0;
            if (skip)
                continue;
            const struct submit_key *k = key_of(f->name);
            if (!k) {
                fail_msg("%s: --%s is no key", v->name, f->name);
                return;
            }
            snprintf(path, sizeof path, "%s%s%s", k->section, *k->section ? "." : "", k->key);
            int i = job_key_index(path);
            if (i < 0 || !(job_key_at(i)->kinds & 1u << kind))
                fail_msg("%s: --%s means %s, which such a job file does not have", v->name, f->name, path);
            assert_int_equal(f->many, k->list);
        }
    }
}

static void flags_become_a_job_file_that_is_read_back(void **state)
{
    (void)state;
    static struct job_spec s;
    struct cli c;
    char *yaml = NULL;
    assert_int_equal(parse(&c, "didact search --dataset fm --curriculum c1 --trials 77 --searcher evolution --max-macs 1.5M --inits 3"
                               " --seed 9"), 0);
    assert_int_equal(submit_compose(&c, "search", &yaml), 0);
    if (jobfile_parse(yaml, strlen(yaml), "flags", &s, &e) < 0)
        fail_msg("%s\n%s", e.text, yaml);
    assert_int_equal(s.kind, JOB_SEARCH);
    assert_int_equal(s.trials, 77);
    assert_int_equal(s.fidelity.inits, 3);
    assert_int_equal(s.seed, 9);
    assert_int_equal(s.constraints.max_macs, 1500000);
    assert_string_equal(s.searcher.name, "evolution");
    assert_string_equal(s.dataset, "fm");
    free(yaml);
}

static void architectures_with_blanks_and_bars_survive(void **state)
{
    (void)state;
    static struct job_spec s;
    char *yaml = NULL, *argv[] = { "didact", "verify", "--dataset", "fm", "--arch", "bn relu | c16k3 | s32k3 | gap", "--arch",
                                   "wn lrelu | c8k3 | c8k5 | flat", "--epochs", "0.5", NULL };
    struct cli c;
    assert_int_equal(cli_parse(&c, 10, argv, &e), 0);
    assert_int_equal(submit_compose(&c, "verify", &yaml), 0);
    if (jobfile_parse(yaml, strlen(yaml), "flags", &s, &e) < 0)
        fail_msg("%s\n%s", e.text, yaml);
    assert_int_equal(s.verify.n_arch, 2);
    assert_string_equal(s.verify.arch[0], "bn relu | c16k3 | s32k3 | gap");
    assert_true(s.verify.epochs == 0.5);
    free(yaml);
}

/* ---- what people read ---- */

static char *printed(struct table *t, int width)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    table_print(t, f, width);
    fclose(f);
    return text;
}

static void fill(struct table *t)
{
    static const struct table_col cols[] = { { "N", true, false }, { "NAME", false, true }, { "SCORE", false, false } };
    table_init(t, 3, cols);
    table_cell(t, "%d", 7);
    table_cell(t, "%s", "a rather long name of something");
    table_cell(t, "%s", "0.5 ± 0.1");
    table_cell(t, "%d", 123);
    table_cell(t, "%s", "");
    table_cell(t, "%s", "0.75");
}

static void tables_are_aligned(void **state)
{
    (void)state;
    struct table t;
    fill(&t);
    char *text = printed(&t, 0);
    assert_string_equal(text, "  N  NAME                             SCORE\n"
                              "  7  a rather long name of something  0.5 ± 0.1\n"
                              "123  -                                0.75\n");
    free(text);
    table_fini(&t);
}

static void only_the_flexible_column_is_cut_to_the_terminal(void **state)
{
    (void)state;
    struct table t;
    fill(&t);
    char *text = printed(&t, 35);
    assert_string_equal(text, "  N  NAME                 SCORE\n"
                              "  7  a rather long name…  0.5 ± 0.1\n"
                              "123  -                    0.75\n");
    for (char *p = strtok(text, "\n"); p; p = strtok(NULL, "\n"))
        if (print_columns(p) > 35)
            fail_msg("wider than 35: '%s'", p);
    free(text);
    table_fini(&t);
}

static void numbers_are_short(void **state)
{
    (void)state;
    short_str s;
    assert_string_equal(fmt_count(s, 0), "0");
    assert_string_equal(fmt_count(s, 999), "999");
    assert_string_equal(fmt_count(s, 1234), "1.23k");
    assert_string_equal(fmt_count(s, 56789), "56.8k");
    assert_string_equal(fmt_count(s, 999999), "1.00M");
    assert_string_equal(fmt_count(s, NAN), "-");
    assert_string_equal(fmt_bytes(s, 3200000), "3.2 MB");
    assert_string_equal(fmt_seconds(s, 0.5), "0.50 s");
    assert_string_equal(fmt_seconds(s, 200), "3 min 20 s");
    assert_string_equal(fmt_seconds(s, 7500), "2 h 05 min");
    assert_string_equal(fmt_seconds(s, -1), "-");
    assert_string_equal(fmt_score(s, 0.81234, 0.0041), "0.8123 ± 0.0041");
    assert_string_equal(fmt_score(s, 0.5, 0), "0.5000");
    assert_string_equal(fmt_score(s, NAN, 0), "-");
    assert_string_equal(fmt_time(s, NAN), "-");
}

static void documents_are_read_forgivingly(void **state)
{
    (void)state;
    json_error_t je;
    json_t *d = json_loads("{\"a\":{\"b\":2,\"s\":\"x\",\"n\":null,\"t\":true}}", 0, &je);
    assert_true(doc_num(d, "a.b") == 2);
    assert_true(isnan(doc_num(d, "a.n")) && isnan(doc_num(d, "a.s")) && isnan(doc_num(d, "z.b")));
    assert_string_equal(doc_str(d, "a.s"), "x");
    assert_string_equal(doc_str(d, "a.n"), "");
    assert_true(doc_true(d, "a.t"));
    json_decref(d);
}

static void a_small_sample_is_not_called_a_conclusion(void **state)
{
    (void)state;
    char s[512];
    verify_sentence(2, 1, NAN, NAN, s, sizeof s);
    assert_non_null(strstr(s, "too few"));
    verify_sentence(9, 0.4, -0.4, 0.8, s, sizeof s);
    assert_non_null(strstr(s, "contains 0"));
    assert_non_null(strstr(s, "0.40"));
    verify_sentence(9, 0.9, 0.5, 0.98, s, sizeof s);
    assert_non_null(strstr(s, "not a conclusion"));
    verify_sentence(40, 0.8, 0.6, 0.9, s, sizeof s);
    assert_null(strstr(s, "too few"));
    assert_null(strstr(s, "not a conclusion"));
    verify_sentence(40, -0.8, -0.9, -0.6, s, sizeof s);
    assert_non_null(strstr(s, "AGAINST"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flags_and_arguments_stand_in_any_order),
        cmocka_unit_test(flags_of_every_verb_may_stand_before_it),
        cmocka_unit_test(values_are_taken_in_each_usual_way),
        cmocka_unit_test(a_verb_of_two_words_is_one_verb),
        cmocka_unit_test(mistakes_name_the_nearest),
        cmocka_unit_test(what_is_missing_or_too_much_is_named),
        cmocka_unit_test(verbs_of_a_group_stand_together),
        cmocka_unit_test(an_empty_argument_is_refused_by_every_verb),
        cmocka_unit_test(help_wants_no_arguments),
        cmocka_unit_test(numbers_are_checked_for_form_and_range),
        cmocka_unit_test(every_verb_is_explained_by_an_example),
        cmocka_unit_test(no_flag_stands_twice_in_a_verb),
        cmocka_unit_test(every_flag_that_makes_a_job_is_a_key_of_job_files),
        cmocka_unit_test(flags_become_a_job_file_that_is_read_back),
        cmocka_unit_test(architectures_with_blanks_and_bars_survive),
        cmocka_unit_test(tables_are_aligned),
        cmocka_unit_test(only_the_flexible_column_is_cut_to_the_terminal),
        cmocka_unit_test(numbers_are_short),
        cmocka_unit_test(documents_are_read_forgivingly),
        cmocka_unit_test(a_small_sample_is_not_called_a_conclusion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
