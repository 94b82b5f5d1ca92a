/* Job files: what is read, what is refused and how it is said, and that the documentation says the same as the table. Runs in the
 * repository root. */
#include "common/job.h"
#include "common/jobfile.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct job_spec spec, other; /* 70 KB each */

#define SEARCH "kind: search\ndataset: fashion\ncurriculum: cur\n"
#define TEACH  "kind: teach\ndataset: fashion\n"
#define VERIFY "kind: verify\nverify: {of: s}\n"

static int parse(const char *text, struct errbuf *e)
{
    return jobfile_parse(text, strlen(text), "job.yaml", &spec, e);
}

static void must_parse(const char *text)
{
    struct errbuf e = { 0 };
    if (parse(text, &e) != 0)
        fail_msg("%s: %s", text, e.text);
}

static void must_fail(const char *text, const char *say)
{
    struct errbuf e = { 0 };
    int rc = parse(text, &e);
    if (rc != -ERR_INPUT)
        fail_msg("accepted (%d):\n%s", rc, text);
    if (!strstr(e.text, say))
        fail_msg("%s\n'%s' does not say '%s'", text, e.text, say);
}

static void defaults_are_those_of_the_documentation(void **state)
{
    (void)state;
    must_parse(SEARCH);
    assert_string_equal(spec.name, "search");
    assert_string_equal(spec.searcher.name, "random");
    assert_int_equal(spec.seed, 1);
    assert_int_equal(spec.window, 8);
    assert_int_equal(spec.trials, 200);
    assert_int_equal(spec.fidelity.inits, 2);
    assert_int_equal(spec.fidelity.valid_images, 2000);
    assert_int_equal(spec.fidelity.steps, 0);
    assert_int_equal(spec.searcher.population, 32);
    assert_int_equal(spec.searcher.sample, 8);
    assert_int_equal(spec.fidelity.n_lr_scales, 1);
    assert_true(spec.fidelity.lr_scale[0] == 1 && spec.trial_timeout_s == 600 && spec.seconds == 0);
    assert_int_equal(spec.max_failed, 0);
    must_parse(TEACH);
    const struct teach_cfg *t = &spec.teach;
    assert_true(t->steps == 32 && t->batch == 128 && t->meta_steps == 500 && t->learners == 4 && t->inits == 1 && t->meta_batch == 512);
    assert_true(t->lr == 0.02 && t->mu == 0.5 && t->inner.type == INNER_SGD && t->inner.eps == 1e-6 && t->inner.scale_1d == 0.3);
    assert_true(t->outer_lr == 0.002 && t->outer_beta1 == 0.9 && t->outer_beta2 == 0.999 && t->outer_eps == 1e-8);
    assert_true(t->outer_lr_end == 0.1 && t->clip == 2 && t->z_dim == 64 && t->g_hidden == 256 && t->g_channels1 == 32);
    assert_true(t->g_channels2 == 16 && t->n_mix == 1 && t->mix_weight[0] == 1 && t->eval_every == 25 && t->checkpoint_every == 25);
    assert_string_equal(t->mix_space[0], "chain");
    assert_string_equal(t->kind, "gtn");
    assert_int_equal(t->max_macs, 1500000);
    must_parse(VERIFY);
    const struct verify_cfg *v = &spec.verify;
    assert_true(v->epochs == 8 && v->batch == 128 && v->lr == 0.1 && v->momentum == 0.9 && v->weight_decay == 5e-4);
    assert_true(v->flip && v->shift == 2 && v->seeds == 1 && v->top == 3 && v->random == 6);
}

static void every_default_reads_back_as_written(void **state)
{
    (void)state;
    const struct job_key *k;
    for (int kind = 0; kind < JOB_KIND_COUNT; kind++)
        for (int i = 0; (k = job_key_at(i)); i++) {
            const char *def = k->def[kind];
            if (!(k->kinds >> kind & 1) || !def || !*def)
                continue;
            struct jtree t;
            struct problems p = { 0 };
            job_defaults(&spec, (enum job_kind)kind);
            other = spec;
            assert_int_equal(jtree_from_yaml(&t, def, strlen(def), "default", "value", NULL), 0);
            job_key_read(k, &t, &t.node[0], &other, &p);
            jtree_fini(&t);
            assert_int_equal(p.n, 0);
            if (memcmp(&spec, &other, sizeof spec) != 0)
                fail_msg("the default of %s is not %s", k->path, def);
        }
}

static void all_keys_are_read(void **state)
{
    (void)state;
    must_parse("kind: search\nname: big-1\nseed: 9223372036854775807\ndataset: d\ncurriculum: c.v2\nspace: nasbench201\npriority: -3\n"
               "window: 4\nparallel: 2\nmax_failed: 5\ntrial_timeout: 90\nbudget: {trials: 7, time: 5m}\n"
               "searcher:\n  name: evolution\n  population: 10\n  sample: 10\n"
               "fidelity: {steps: 16, inits: 3, valid_images: 100, checkpoints: [4, 8, 16], lr_scales: [0.5, 1, 2.5]}\n"
               "constraints: {min_params: 0.5k, max_params: 100k, min_macs: 30000, max_macs: \"0.5M\"}\n");
    assert_string_equal(spec.name, "big-1");
    assert_true(spec.seed == INT64_MAX);
    assert_string_equal(spec.space, "nasbench201");
    assert_true(spec.priority == -3 && spec.window == 4 && spec.parallel == 2 && spec.max_failed == 5 && spec.trials == 7);
    assert_true(spec.trial_timeout_s == 90 && spec.seconds == 300);
    assert_string_equal(spec.searcher.name, "evolution");
    assert_true(spec.fidelity.n_checkpoints == 3 && spec.fidelity.checkpoint[2] == 16);
    assert_true(spec.fidelity.n_lr_scales == 3 && spec.fidelity.lr_scale[2] == 2.5);
    assert_true(spec.constraints.min_params == 500 && spec.constraints.max_params == 100000);
    assert_true(spec.constraints.min_macs == 30000 && spec.constraints.max_macs == 500000);
    must_parse("kind: teach\ndataset: d\nteach:\n  kind: real\n  seconds: 1.5h\n  meta_at: [{step: 8, weight: 0.25}, {step: 16}]\n"
               "  learners_mix:\n    - space: chain\n      weight: 3\n    - {space: nasbench201, weight: 0.5}\n"
               "  inner: {type: lars, eps: 1e-5, scale_1d: 0.1, weight_decay: 0.001}\n  adam: {lr: 0.01, beta1: 0, beta2: 0.9, eps: 1e-6, lr_end: 1, schedule: 3}\n"
               "  learn_labels: yes\n  max_macs: 0\n");
    const struct teach_cfg *t = &spec.teach;
    assert_true(t->seconds == 5400 && t->n_meta_at == 2 && t->meta_at[1] == 16 && t->meta_weight[0] == 0.25 && t->meta_weight[1] == 1);
    assert_true(t->n_mix == 2 && t->mix_weight[1] == 0.5 && t->inner.type == INNER_LARS && t->inner.eps == 1e-5 && t->learn_labels);
    assert_true(t->outer_schedule == 3 && t->outer_lr == 0.01 && t->outer_beta1 == 0 && t->outer_lr_end == 1 && t->max_macs == 0);
    assert_true(t->lr == 0.015); /* of lars */
    must_parse("{\"kind\": \"verify\", \"dataset\": \"d\", \"verify\": {\"arch\": [\"bn relu|c8k3|c16k3 skip|gap\"], \"flip\": false, \"epochs\": 0.5}}");
    assert_int_equal(spec.verify.n_arch, 1);
    assert_string_equal(spec.verify.arch[0], "bn relu | c8k3 | c16k3 | gap");
    assert_true(!spec.verify.flip && spec.verify.epochs == 0.5);
    must_parse(SEARCH "fidelity.inits: 5\nfidelity:\n");
    assert_int_equal(spec.fidelity.inits, 5);
}

static void a_whole_hash_may_stand_for_a_name(void **state)
{
    (void)state;
    const char *hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    char text[300];
    snprintf(text, sizeof text, "kind: search\ndataset: '%s'\ncurriculum_hash: \"%s\"\n", hash, hash);
    must_parse(text);
    assert_string_equal(spec.dataset_hash, hash);
    assert_string_equal(spec.dataset, "0123456789abcdef");
    assert_string_equal(spec.curriculum_hash, hash);
    assert_int_equal(jobfile_set(&spec, "dataset=other", NULL), 0);
    assert_string_equal(spec.dataset_hash, "");
    must_fail("kind: search\ndataset: d\ncurriculum_hash: abc\n", "line 3: 'curriculum_hash' must be 64 lower-case");
}

static void mistakes_are_told_with_their_line(void **state)
{
    (void)state;
    static const struct { const char *text, *say; } bad[] = {
        { "", "job.yaml: is empty" },
        { "# nothing\n", "job.yaml: is empty" },
        { "[1, 2]", "a job is a list of 'key: value'" },
        { "dataset: d\n", "'kind' is missing" },
        { "kind: serach\n", "line 1: 'kind' must be teach, search or verify, not 'serach' (did you mean 'search'?)" },
        { "kind: search\n", "'dataset' is missing; 'curriculum' is missing" },
        { SEARCH "budjet: {trials: 3}\n", "job.yaml: line 4: unknown key 'budjet' (did you mean 'budget'?)" },
        { SEARCH "fidelity:\n  steps: 4\n  init: 2\n", "line 6: unknown key 'fidelity.init' (did you mean 'inits'?)" },
        { SEARCH "frobnicate: 1\n", "line 4: unknown key 'frobnicate'" },
        { SEARCH "seed: abc\n", "line 4: 'seed' must be an integer, at least 0, not abc" },
        { SEARCH "seed: 99999999999999999999\n", "line 4: 'seed' must be an integer" },
        { SEARCH "seed: \"3\"\n", "line 4: 'seed' must be an integer, at least 0, not the text \"3\"" },
        { SEARCH "fidelity: {inits: 2.5}\n", "'fidelity.inits' must be an integer, 1 to 64, not 2.5" },
        { SEARCH "fidelity: {inits: 65}\n", "'fidelity.inits' must be an integer, 1 to 64, not 65" },
        { SEARCH "fidelity: {inits: [2]}\n", "'fidelity.inits' must be an integer, 1 to 64, not a list" },
        { SEARCH "fidelity: {inits: }\n", "not nothing" },
        { SEARCH "fidelity: 3\n", "line 4: 'fidelity' must be a group of keys" },
        { SEARCH "fidelity: {checkpoints: 8}\n", "'fidelity.checkpoints' must be a list of up to 16 integers" },
        { SEARCH "fidelity: {checkpoints: [8, x]}\n", "not x" },
        { SEARCH "fidelity: {checkpoints: [8, 8]}\n", "'fidelity.checkpoints' must rise: 8 follows 8" },
        { SEARCH "fidelity: {lr_scales: [1, 2, 3, 4, 5]}\n", "'fidelity.lr_scales' has more than 4 items" },
        { SEARCH "fidelity: {lr_scales: [0]}\n", "above 0, at most 100" },
        { SEARCH "scores: {zero_cost: [synflo]}\n", "did you mean 'synflow'" },
        { SEARCH "scores: {fuse: [score, latency]}\n", "'scores.fuse' has latency, but nothing measures it" },
        { SEARCH "latency: {measure: true, batch: 257}\n", "'latency.batch' must be an integer, 1 to 256" },
        { SEARCH "scores: {zero_cost: [snip, snip]}\n", "'scores.zero_cost' names snip twice" },
        { SEARCH "scores: {fuse: [score, naswot]}\n", "'scores.fuse' has naswot, which 'scores.zero_cost' does not compute" },
        { SEARCH "scores: {fuse: [score, score]}\n", "'scores.fuse' names score twice" },
        { SEARCH "warmup: {candidates: 10, keep: 11}\n", "'warmup.keep' is 11, more than the 10 candidates" },
        { SEARCH "warmup: {candidates: 10, vote: [synflow, score]}\n", "'warmup.vote' has score, which nobody knows before a trial" },
        { SEARCH "warmup: {candidates: 10, vote: [synflow, naswot, synflow]}\n", "'warmup.vote' names synflow twice" },
        { SEARCH "warmup: {score: synflow}\n", "must be one of params, macs" },
        { SEARCH "warmup: {candidates: 10, vote: [foo]}\n", "'warmup.vote' must be one of params, macs, synflow, naswot, jacob_cov, zico, snip, grad_norm, not 'foo'" },
        { SEARCH "warmup:\n  vote: [params]\n", "line 5: 'warmup.vote' asks for a warm-up, but 'warmup.candidates' is not given" },
        { SEARCH "warmup: {keep: 5}\n", "line 4: 'warmup.keep' asks for a warm-up, but 'warmup.candidates' is not given" },
        { SEARCH "warmup: {score: macs}\n", "line 4: 'warmup.score' asks for a warm-up, but 'warmup.candidates' is not given" },
        { SEARCH "warmup:\n  candidates: 10\n  vote: [params]\n  score: macs\n", "line 7: 'warmup.score' is macs, but 'warmup.vote' ranks instead of it" },
        { SEARCH "halving: {steps: [8, 4]}\nfidelity: {steps: 16}\n", "'halving': rung 0 has 8 steps, and what follows 4: they must not fall" },
        { SEARCH "halving: {steps: [8], inits: [3]}\nfidelity: {steps: 16}\n", "'halving': rung 0 has 3 initialisations, and what follows 2: they must not fall" },
        { SEARCH "halving: {steps: [8, 16]}\nfidelity: {steps: 16}\n", "rung 1 (16 steps" },
        { SEARCH "halving: {steps: [8], inits: [1, 1]}\n", "'halving.inits' has 2 items, 'halving.steps' 1" },
        { SEARCH "objectives: []\n", "'objectives' is empty" },
        { SEARCH "objectives: [{metric: speed}]\n", "'objectives: metric' must be one of score, params, macs, latency, not 'speed'" },
        { SEARCH "objectives: [{metric: score, goal: most}]\n", "'objectives: goal' must be one of min, max, not 'most'" },
        { SEARCH "objectives: [{metric: score, goal: [max]}]\n", "'objectives: goal' must be one of min, max, not a list" },
        { SEARCH "objectives: [{goal: max}]\n", "an item has no 'metric'" },
        { SEARCH "objectives: [{metric: params}, {metric: params, goal: max}]\n", "names params twice" },
        { SEARCH "fidelity: {inits: 2,\n channels: 16}\n", "line 5: 'fidelity.channels': networks of the space chain state their own" },
        { SEARCH "space: nasnet\nfidelity: {cells: 9}\n", "'fidelity.cells' must be an integer, 0 to 8, not 9" },
        { SEARCH "fidelity: {lr_scales: []}\n", "'fidelity.lr_scales' is empty" },
        { SEARCH "fidelity:\n  steps: 8\n  checkpoints: [4, 9]\n", "line 6: 'fidelity.checkpoints' has 9, beyond 'fidelity.steps' (8)" },
        { SEARCH "window: 0\n", "line 4: 'window' must be an integer, 1 to 4096, not 0" },
        { SEARCH "budget: {trials: 0}\n", "'budget.trials' must be an integer, 1 to" },
        { SEARCH "budget: {time: 5 minutes}\n", "'budget.time' must be a time such as 90s, 5m or 2h, not 5 minutes" },
        { SEARCH "budget: {time: -5m}\n", "'budget.time' must be a time" },
        { SEARCH "trial_timeout: 0\n", "'trial_timeout' must be a time" },
        { SEARCH "trial_timeout: nan\n", "'trial_timeout' must be a time" },
        { SEARCH "constraints: {max_params: 0x10}\n", "'constraints.max_params' must be a count such as 100k or 0.5M" },
        { SEARCH "constraints: {max_params: 1.5}\n", "'constraints.max_params' must be a count" },
        { SEARCH "constraints: {max_params: 1kk}\n", "'constraints.max_params' must be a count" },
        { SEARCH "constraints:\n  min_params: 200k\n  max_params: 100k\n",
          "line 6: 'constraints.min_params' is 200000 but 'constraints.max_params' is 100000: nothing can satisfy both" },
        { SEARCH "constraints: {min_macs: 2M, max_macs: 1M}\n", "nothing can satisfy both" },
        { SEARCH "space: a b\n", "line 4: 'space' must be the name or path of a space of 1 to 63 characters, not 'a b'" },
        { SEARCH "space: ./a-path-of-seventy-characters/which-is-more-than-fits-into-a-name/x.yaml\n", "'space' must be a path of 1 to 63 characters" },
        { SEARCH "space: [chain]\n", "'space' must be a search space, by name, hash or path, not a list" },
        { SEARCH "space_hash: 12\n", "'space_hash' must be 64 lower-case hexadecimal digits" },
        { SEARCH "searcher: {name: evolutoin}\n", "did you mean 'evolution'?" },
        { SEARCH "searcher: {name: evolution, population: 4, sample: 5}\n", "'searcher.sample' is 5, more than the population of 4" },
        { SEARCH "searcher: {name: external}\nhalving: {steps: [2]}\nfidelity: {steps: 8}\n", "line 5: 'halving' makes proposals of its own" },
        { SEARCH "searcher: {name: external}\nwarmup: {candidates: 9}\n", "line 5: 'warmup' makes proposals of its own" },
        { SEARCH "searcher: {name: external}\nwarmup: {candidates: 9, vote: [synflow]}\n", "line 5: 'warmup' makes proposals of its own" },
        { SEARCH "warmup: {vote: [params]}\nsearcher: {name: external}\n", "line 5: 'warmup' makes proposals of its own" },
        { SEARCH "racing: {inits: [4]}\nsearcher: {name: external}\n", "line 5: 'racing' makes proposals of its own" },
        { SEARCH "racing: {inits: [4, 4]}\n", "line 4: 'racing.inits' must rise from 'fidelity.inits' (2): 4 follows 4" },
        { SEARCH "racing: {inits: [4]}\nfidelity: {inits: 4}\n", "line 5: 'racing.inits' must rise from 'fidelity.inits' (4): 4 follows 4" },
        { SEARCH "racing: {inits: [4]}\nfidelity: {inits: 1}\n", "line 5: 'racing' needs 'fidelity.inits' of at least 2" },
        { SEARCH "racing: {inits: [4], after: 500}\nbudget: {trials: 100}\n", "line 5: 'racing.after' is 500, and 'budget.trials' 100: there would be no race" },
        { SEARCH "racing: {inits: [4]}\nbudget: {trials: 50}\n", "line 5: 'racing.after' is 50, and 'budget.trials' 50: there would be no race" },
        { SEARCH "racing: {among: 3}\n", "line 4: 'racing.among' asks for a race, but 'racing.inits' is not given" },
        { SEARCH "teach: {steps: 3}\n", "line 4: 'teach' is not for a search job" },
        { SEARCH "seed: 1\nwindow: 2\nseed: 2\n", "line 6: 'seed' is given twice (first on line 4)" },
        { SEARCH "fidelity: {inits: 2}\nfidelity.inits: 3\n", "line 5: 'fidelity.inits' is given twice (first on line 4)" },
        { SEARCH "name: 17\n", "'name' must not be a number" },
        { SEARCH "name: a b\n", "'name': a name has letters" },
        { SEARCH "name: ''\n", "'name' must be a name of 1 to 63" },
        { SEARCH "name: a123456789012345678901234567890123456789012345678901234567890123\n", "'name' must be a name of 1 to 63" },
        { SEARCH "a: &x 3\nb: *x\n", "job.yaml: line 4: anchors" },
        { SEARCH "b: *x\n", "job.yaml: line 4: anchors (&name) and aliases" },
        { SEARCH "&k seed: 3\n", "job.yaml: line 4: anchors" },
        { SEARCH "seed: !!int 3\n", "job.yaml: line 4: tags" },
        { SEARCH "? [a]\n: 3\n", "job.yaml: line 4: a key must be a word" },
        { SEARCH "fidelity: {inits: 2\n", "not valid YAML" },
        { SEARCH "\tseed: 2\n", "job.yaml: line 4: not valid YAML" },
        { SEARCH "---\nkind: search\n", "job.yaml: line 4: a second document; one file is one job" },
        { "kind: [[[[[[[[[[[[1]]]]]]]]]]]]\n", "nested too deep" },
        { "kind: \xff\xfe\n", "not text at byte" },
        { TEACH "window: 3\n", "'window' is not for a teach job" },
        { TEACH "teach: {meta_at: [{step: 32}]}\n", "'teach.meta_at': steps must rise and stay below 'teach.steps' (32), not 32" },
        { TEACH "teach: {meta_at: [{step: 9}, {step: 8}]}\n", "steps must rise" },
        { TEACH "teach: {meta_at: [{weight: 1}]}\n", "'teach.meta_at': an item has no 'step'" },
        { TEACH "teach: {meta_at: [{step: 3, wieght: 1}]}\n", "'teach.meta_at': unknown key 'wieght' (did you mean 'weight'?)" },
        { TEACH "teach: {meta_at: [{step: 3, step: 1}]}\n", "'teach.meta_at': repeated key 'step'" },
        { TEACH "teach: {meta_at: [3]}\n", "each item must be {step" },
        { TEACH "teach: {learners: 100, inits: 11}\n", "'teach.learners' times 'teach.inits' is 1100, more than 1024" },
        { TEACH "teach: {inits: 0}\n", "'teach.inits'" },
        { TEACH "teach: {learners_mix: []}\n", "there would be no learners" },
        { TEACH "teach: {learners_mix: [{space: chain}, {space: chain}]}\n", "names chain twice" },
        { TEACH "teach: {learners_mix: [{space: chain, weight: 0}]}\n", "above 0" },
        { TEACH "teach: {learners_mix: [{weight: 1}]}\n", "'teach.learners_mix': an item has no 'space'" },
        { TEACH "teach: {learners_mix: [{space: chain, wieght: 1}]}\n", "unknown key 'wieght' (did you mean 'weight'?)" },
        { TEACH "teach: {inner: {type: adamm}}\n", "'teach.inner.type' must be one of sgd, lars, nesterov, rmsprop, adam, not 'adamm'" },
        { TEACH "teach: {inner: {typ: sgd}}\n", "unknown key 'teach.inner.typ' (did you mean 'type'?)" },
        { TEACH "teach: {inner: sgd}\n", "'teach.inner' must be a group of keys" },
        { TEACH "teach: {mu: 1}\n", "'teach.mu' must be a number, above 0, at most 0.9999, not 1" },
        { TEACH "teach: {learn_labels: 1}\n", "'teach.learn_labels' must be true or false, not 1" },
        { "kind: verify\n", "give 'verify.of'" },
        { "kind: verify\nverify: {of: s, arch: ['bn relu | c8k3 | c8k3 | gap']}\n", "exclude each other" },
        { "kind: verify\nverify: {of: s, top: 0, random: 0}\n", "nothing to train" },
        { "kind: verify\nverify: {arch: ['bn relu | c8k3 | c8k3 | gap']}\n", "'dataset' is missing" },
        { "kind: verify\ndataset: d\nverify:\n  arch: ['bn relu | c8k3 | gap']\n", "line 4: 'verify.arch' item 1: needs at least four" },
        { "kind: verify\ndataset: d\nverify: {arch: ['bn relu | c8k3 | c8k3 | gap', 'bn  relu|c8k3|c8k3|gap']}\n", "items 1 and 2 are the same network" },
        { "kind: verify\ndataset: d\nverify: {arch: ['']}\n", "an architecture is a text" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        must_fail(bad[i].text, bad[i].say);
}

static void several_problems_are_told_at_once(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    assert_int_equal(parse(SEARCH "seed: x\nwindow: y\npriority: z\nparallel: q\nnaem: r\n", &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "line 4: 'seed'"));
    assert_non_null(strstr(e.text, "line 5: 'window'"));
    assert_non_null(strstr(e.text, "line 6: 'priority'"));
    assert_null(strstr(e.text, "line 7"));
    assert_non_null(strstr(e.text, "; and 2 more"));
}

static void messages_stay_valid_text(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    for (int pad = 0; pad < 4; pad++) { /* long keys of two-byte letters are cut somewhere */
        char text[400] = SEARCH;
        for (int i = 0; i < pad; i++)
            strcat(text, "a");
        for (int i = 0; i < 60; i++)
            strcat(text, "é");
        strcat(text, ": 1\n");
        assert_int_equal(parse(text, &e), -ERR_INPUT);
        json_t *j = json_string(e.text); /* NULL unless valid UTF-8 */
        if (!j)
            fail_msg("not UTF-8: %s", e.text);
        json_decref(j);
    }
    char bad[] = "a\xC0\x80 \xED\xA0\x80 \xF4\x90\x80\x80 \xE2\x82 \xE2\x82\xAC";
    utf8_clean(bad);
    json_t *j = json_string(bad);
    assert_non_null(j);
    assert_non_null(strstr(bad, "\xE2\x82\xAC"));
    json_decref(j);
}

static void large_and_crowded_files_are_refused(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    char *text = malloc(JOB_TEXT_MAX + 2);
    assert_non_null(text);
    memset(text, ' ', JOB_TEXT_MAX + 1);
    text[JOB_TEXT_MAX + 1] = 0;
    assert_int_equal(parse(text, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "larger than 65536"));
    strcpy(text, "kind: [");
    for (size_t i = 0; i < 5000; i++)
        strcpy(text + 7 + 2 * i, "1,");
    strcat(text, "]\n");
    assert_int_equal(parse(text, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "more than 4096 values"));
    free(text);
}

static void set_changes_one_key_and_checks_the_whole(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    must_parse(SEARCH);
    assert_int_equal(jobfile_set(&spec, "budget.trials=50", &e), 0);
    assert_int_equal(spec.trials, 50);
    assert_int_equal(jobfile_set(&spec, "fidelity.checkpoints=[8, 16]", &e), 0);
    assert_int_equal(spec.fidelity.n_checkpoints, 2);
    assert_int_equal(jobfile_set(&spec, "constraints.max_macs=0.5M", &e), 0);
    assert_int_equal(spec.constraints.max_macs, 500000);
    other = spec;
    static const struct { const char *set, *say; } bad[] = {
        { "budget.trials", "must be key=value" },
        { "=3", "must be key=value" },
        { "budget.trails=3", "unknown key 'budget.trails' (did you mean 'budget.trials'?)" },
        { "kind=teach", "cannot be changed" },
        { "teach.steps=3", "'teach.steps' is not for a search job" },
        { "budget.trials=x", "--set: 'budget.trials' must be an integer" },
        { "budget.trials=", "is empty" },
        { "fidelity.steps=12", "has 16, beyond 'fidelity.steps' (12)" },
        { "constraints.min_macs=1M", "nothing can satisfy both" },
        { "audit.batch=64", "--set: 'audit.batch' asks for an audit, but 'audit.share' is not given" },
        { "warmup.keep=5", "--set: 'warmup.keep' asks for a warm-up, but 'warmup.candidates' is not given" },
        { "racing.among=2", "--set: 'racing.among' asks for a race, but 'racing.inits' is not given" },
        { "racing.inits=[4]", "--set: 'racing.after' is 50, and 'budget.trials' 50: there would be no race" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(jobfile_set(&spec, bad[i].set, &e), -ERR_INPUT);
        if (!strstr(e.text, bad[i].say))
            fail_msg("%s: '%s' does not say '%s'", bad[i].set, e.text, bad[i].say);
        assert_memory_equal(&spec, &other, sizeof spec);
    }
    must_parse(TEACH);
    assert_int_equal(jobfile_set(&spec, "teach.inner.type=lars", &e), 0);
    assert_true(spec.teach.lr == 0.015);
    assert_int_equal(jobfile_set(&spec, "teach.lr=0.5", &e), 0);
    assert_int_equal(jobfile_set(&spec, "teach.inner.type=sgd", &e), 0);
    assert_true(spec.teach.lr == 0.5);
}

/* Spec to JSON text and back. */
static void expect_round_trip(const char *text)
{
    struct errbuf e = { 0 };
    must_parse(text);
    json_t *j = job_to_json(&spec);
    assert_non_null(j);
    char *s = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(j);
    j = json_loads(s, 0, NULL);
    assert_non_null(j);
    memset(&other, 0xA5, sizeof other);
    if (job_from_json(&other, j, &e) != 0)
        fail_msg("%s: %s", s, e.text);
    assert_memory_equal(&spec, &other, sizeof spec);
    json_decref(j);
    if (jobfile_parse(s, strlen(s), "json", &other, &e) != 0) /* JSON is YAML */
        fail_msg("%s: %s", s, e.text);
    assert_memory_equal(&spec, &other, sizeof spec);
    free(s);
}

static void a_latency_is_measured_where_something_asks_for_it(void **state)
{
    (void)state;
    must_parse(SEARCH);
    assert_int_equal(spec.n_objectives, 3);
    assert_int_equal(job_latency_batch(&spec), 0);
    must_parse(SEARCH "latency: {batch: 8}\n");
    assert_int_equal(job_latency_batch(&spec), 0);
    must_parse(SEARCH "latency: {measure: true, batch: 8}\n");
    assert_int_equal(job_latency_batch(&spec), 8);
    must_parse(SEARCH "objectives: [{metric: score}, {metric: latency}]\n");
    assert_int_equal(job_latency_batch(&spec), 1);
    assert_false(spec.objective[1].max); /* less is better */
}

/* Keys that limit each other may come in any order, and all or none of them take effect. */
static void several_settings_are_checked_together(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    char *up[] = { (char[]){ "constraints.min_params=200k" }, (char[]){ "constraints.max_params=300k" } };
    char *wrong[] = { (char[]){ "constraints.min_params=10" }, (char[]){ "constraints.max_params=5" } };
    must_parse(SEARCH "constraints: {max_params: 100k}\n");
    assert_int_equal(jobfile_set_all(&spec, up, 2, &e), 0);
    assert_true(spec.constraints.min_params == 200000 && spec.constraints.max_params == 300000);
    assert_int_equal(jobfile_set_all(&spec, wrong, 2, &e), -ERR_INPUT);
    assert_true(spec.constraints.min_params == 200000 && spec.constraints.max_params == 300000);
}

static void specs_survive_json(void **state)
{
    (void)state;
    expect_round_trip(SEARCH "scores: {zero_cost: [zico, synflow], fuse: [score, loss_sum, params, synflow]}\n");
    expect_round_trip(SEARCH "halving: {steps: [8, 16], inits: [1, 2], reduction: 4}\nfidelity: {steps: 16, inits: 4}\n");
    expect_round_trip(SEARCH "objectives: [{metric: macs}, {metric: score, goal: min}]\n");
    expect_round_trip(SEARCH "warmup: {candidates: 300, vote: [macs, synflow, zico]}\n");
    expect_round_trip(SEARCH "objectives: [{metric: score}, {metric: latency}]\nlatency: {batch: 16}\nscores: {fuse: [score, latency]}\n");
    expect_round_trip(SEARCH "seed: 9007199254740993\nfidelity: {checkpoints: [3, 5], lr_scales: [0.1, 1, 0.3333333333333333]}\nbudget: {time: 1h}\n");
    expect_round_trip(TEACH "teach: {meta_at: [{step: 3, weight: 0.1}], lr: 0.123456789012345678, clip: 0, mu: 0.7}\n");
    expect_round_trip(VERIFY);
    expect_round_trip(SEARCH "space: mine@0123456789abcdef\nspace_hash: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n");
    expect_round_trip(SEARCH "space: ./my/space.yaml\n");
    expect_round_trip(TEACH "teach: {learners_mix: [{space: chain, weight: 2}, {space: mine@0123456789abcdef, weight: 1, hash: "
                      "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef}]}\n");
    expect_round_trip("kind: verify\ndataset: d\nspace: nasbench201\nverify:\n  arch:\n"
                      "    - '|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|'\n");
    expect_round_trip("kind: search\ncurriculum: c\ndataset: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n");
}

/* A spec as it is stored has every key: what has no effect in it was accepted once, and its job must be readable. */
static void a_stored_spec_may_have_what_a_file_may_not(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    must_parse(SEARCH);
    spec.warmup.n_vote = 1;
    spec.warmup.vote[0] = COLUMN_PARAMS;
    strcpy(spec.warmup.score, "macs");
    spec.racing.n_inits = 1;
    spec.racing.inits[0] = 4;
    spec.racing.after = 500;
    json_t *j = job_to_json(&spec);
    memset(&other, 0xA5, sizeof other);
    if (job_from_json(&other, j, &e) != 0)
        fail_msg("%s", e.text);
    assert_memory_equal(&spec, &other, sizeof spec);
    assert_int_equal(jobfile_set(&other, "priority=3", &e), 0);
    json_decref(j);
}

static void bad_json_is_refused(void **state)
{
    (void)state;
    struct errbuf e = { 0 };
    assert_int_equal(job_from_json(&spec, NULL, &e), -ERR_INPUT);
    json_t *j = json_pack("{s:s, s:s, s:s, s:i}", "kind", "search", "dataset", "d", "curriculum", "c", "widnow", 3);
    assert_int_equal(job_from_json(&spec, j, &e), -ERR_INPUT);
    assert_non_null(strstr(e.text, "unknown key 'widnow' (did you mean 'window'?)"));
    json_decref(j);
}

static void names_of_states_go_both_ways(void **state)
{
    (void)state;
    for (int i = 0; i < JOB_KIND_COUNT; i++)
        assert_int_equal(job_kind_from(job_kind_name((enum job_kind)i)), i);
    for (int i = 0; i < JOB_STATE_COUNT; i++)
        assert_int_equal(job_state_from(job_state_name((enum job_state)i)), i);
    for (int i = 0; i < TRIAL_STATE_COUNT; i++)
        assert_int_equal(trial_state_from(trial_state_name((enum trial_state)i)), i);
    for (int i = 0; i < FAIL_REASON_COUNT; i++)
        assert_int_equal(fail_reason_from(fail_reason_name((enum fail_reason)i)), i);
    for (int i = 0; i < DEVICE_CLASS_COUNT; i++)
        assert_int_equal(device_class_from(device_class_name((enum device_class)i)), i);
    assert_int_equal(device_class_from("gpu"), -1);
    assert_int_equal(job_kind_from("reach"), -1);
    assert_string_equal(job_state_name(JOB_STATE_COUNT), "?");
    assert_string_equal(fail_reason_name(FAIL_OOM), "oom");
    assert_string_equal(trial_state_name(TRIAL_SCORED), "scored");
}

/* ---- documentation ---- */

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: run this in the repository root", path);
    char  *s = calloc(1, 1 << 17);
    size_t n = fread(s, 1, (1 << 17) - 1, f);
    fclose(f);
    assert_true(n > 1000);
    return s;
}

/* The row of docs/job-file.md for a key. */
static void doc_row(const struct job_key *k, char *row, size_t cap)
{
    char kinds[64] = "", def[128] = "";
    const char *first = NULL;
    int  n = 0;
    bool same = true;
    for (int i = 0; i < JOB_KIND_COUNT; i++) {
        if (!(k->kinds >> i & 1))
            continue;
        const char *d = !k->def[i] ? "required" : *k->def[i] ? k->def[i] : "none";
        snprintf(kinds + strlen(kinds), sizeof kinds - strlen(kinds), "%s%s", n++ ? ", " : "", job_kind_name((enum job_kind)i));
        snprintf(def + strlen(def), sizeof def - strlen(def), "%s%s: %s", *def ? "; " : "", job_kind_name((enum job_kind)i), d);
        same = same && (!first || strcmp(first, d) == 0);
        first = d;
    }
    if (same)
        snprintf(def, sizeof def, strcmp(first, "required") == 0 || strcmp(first, "none") == 0 ? "%s" : "`%s`", first);
    snprintf(row, cap, "| `%s` | %s | %s | %s | %s |\n", k->path, n == JOB_KIND_COUNT ? "all" : kinds, job_key_type(k), def, k->doc);
}

static void every_key_has_its_row_in_the_documentation(void **state)
{
    (void)state;
    char *doc = read_file("docs/job-file.md"), row[600];
    const struct job_key *k;
    int n = 0, rows = 0;
    for (; (k = job_key_at(n)); n++) {
        doc_row(k, row, sizeof row);
        if (!strstr(doc, row))
            fail_msg("docs/job-file.md lacks: %s", row);
    }
    for (char *p = doc; (p = strstr(p, "\n| `")); p++)
        rows++;
    assert_int_equal(rows, n);
    free(doc);
}

static void the_examples_of_the_documentation_are_valid(void **state)
{
    (void)state;
    char *doc = read_file("docs/job-file.md"), *p = doc;
    int   n = 0;
    while ((p = strstr(p, "```yaml\n"))) {
        struct errbuf e = { 0 };
        p += 8;
        char *end = strstr(p, "```");
        assert_non_null(end);
        if (jobfile_parse(p, (size_t)(end - p), "example", &spec, &e) != 0)
            fail_msg("%s", e.text);
        p = end;
        n++;
    }
    assert_int_equal(n, 3);
    free(doc);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_documentation),
        cmocka_unit_test(every_default_reads_back_as_written),
        cmocka_unit_test(all_keys_are_read),
        cmocka_unit_test(a_whole_hash_may_stand_for_a_name),
        cmocka_unit_test(mistakes_are_told_with_their_line),
        cmocka_unit_test(several_problems_are_told_at_once),
        cmocka_unit_test(messages_stay_valid_text),
        cmocka_unit_test(large_and_crowded_files_are_refused),
        cmocka_unit_test(set_changes_one_key_and_checks_the_whole),
        cmocka_unit_test(a_latency_is_measured_where_something_asks_for_it),
        cmocka_unit_test(several_settings_are_checked_together),
        cmocka_unit_test(specs_survive_json),
        cmocka_unit_test(a_stored_spec_may_have_what_a_file_may_not),
        cmocka_unit_test(bad_json_is_refused),
        cmocka_unit_test(names_of_states_go_both_ways),
        cmocka_unit_test(every_key_has_its_row_in_the_documentation),
        cmocka_unit_test(the_examples_of_the_documentation_are_valid),
    };
    return cmocka_run_group_tests_name("jobfile", tests, NULL, NULL);
}
