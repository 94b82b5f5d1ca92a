/* jobfile_keys.c - the table of keys. It drives reading, defaults, `--set`, JSON both ways and the help pages; adding a key is
 * adding a row (and the row in docs/job-file.md, which a test compares with this table). */
#include "common/jobfile.h"
#include "common/score_column.h"
#include "common/space_file.h"
#include "common/suggest.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define T (1u << JOB_TEACH)
#define S (1u << JOB_SEARCH)
#define V (1u << JOB_VERIFY)
#define AT(f) offsetof(struct job_spec, f)
#define SAME(d) { d, d, d }

/* path, form, kinds, offset, offset of the count (or of the hash), room in a list, least, most, default, meaning */
static const struct job_key table[] = {
    { "name", F_NAME, T | S | V, AT(name), 0, 0, 0, 0, { "teach", "search", "verify" }, "what the job is called; not only digits" },
    { "seed", F_SEED, T | S | V, AT(seed), 0, 0, 0, 0x1p63, SAME("1"), "every random number of the job follows from it" },
    { "dataset", F_REF, T | S | V, AT(dataset), AT(dataset_hash), 0, 0, 0, { NULL, NULL, "" },
      "the real images: name or hash of an imported dataset; a verify job has that of its search" },
    { "dataset_hash", F_HASH, T | S | V, AT(dataset_hash), 0, 0, 0, 0, SAME(""), "filled in at submission: the dataset's content" },
    { "curriculum", F_REF, S, AT(curriculum), AT(curriculum_hash), 0, 0, 0, SAME(NULL), "what candidates are trained on: name or hash" },
    { "curriculum_hash", F_HASH, S, AT(curriculum_hash), 0, 0, 0, 0, SAME(""), "filled in at submission: the curriculum's content" },
    { "space", F_SPACE, S | V, AT(space), AT(space_hash), 0, 0, 0, SAME("chain"),
      "the search space: a built-in or imported one, or the path of a space file; of `verify.arch`, in a verify job" },
    { "space_hash", F_HASH, S | V, AT(space_hash), 0, 0, 0, 0, SAME(""), "filled in at submission: the content of an imported space" },
    { "device", F_DEVICE, T | S, AT(device), 0, 0, 0, 0, SAME("cpu"),
      "where learners are trained: any takes what a worker has, and gives up replay to the bit" },
    { "priority", F_INT, T | S | V, AT(priority), 0, 0, -100, 100, SAME("0"), "higher is served first" },
    { "window", F_INT, S, AT(window), 0, 0, 1, 4096, SAME("8"), "a proposal may depend on results up to so many back; at least the workers' slots keeps all busy" },
    { "parallel", F_INT, S | V, AT(parallel), 0, 0, 0, 100000, SAME("0"), "trials running at once, at most; 0: no limit" },
    { "max_failed", F_INT, S | V, AT(max_failed), 0, 0, 0, 1000000, SAME("0"), "so many failed trials fail the job; 0: no limit" },
    { "trial_timeout", F_TIME, T | S | V, AT(trial_timeout_s), 0, 0, JOB_ABOVE_0, 2592000, { "24h", "10m", "1h" },
      "one trial (teach: the whole training) may take so long" },
    { "budget.trials", F_INT, S, AT(trials), 0, 0, 1, 10000000, SAME("200"), "candidates to score" },
    { "budget.time", F_TIME, S | V, AT(seconds), 0, 0, 0, 31536000, SAME("0"), "stop proposing after so long; 0: no limit" },
    { "objectives", F_OBJECTIVES, S, AT(objective), AT(n_objectives), MAX_OBJECTIVES, 0, 0,
      SAME("[{metric: score}, {metric: params}, {metric: macs}]"), "of nsga2, and of the Pareto front in the results" },
    { "searcher.name", F_SEARCHER, S, AT(searcher.name), 0, 0, 0, 0, SAME("random"), "the algorithm that proposes; external: a program of yours does" },
    { "searcher.population", F_INT, S, AT(searcher.population), 0, 0, 2, 100000, SAME("32"), "evolution: so many of the newest survive; nsga2: of the fittest" },
    { "searcher.sample", F_INT, S, AT(searcher.sample), 0, 0, 1, 100000, SAME("8"), "evolution: the parent is the best of so many drawn" },
    { "warmup.candidates", F_INT, S, AT(warmup.candidates), 0, 0, 0, 10000, SAME("0"), "architectures drawn and ranked by a cheap score before the first trial" },
    { "warmup.keep", F_INT, S, AT(warmup.keep), 0, 0, 0, 10000, SAME("0"), "the search starts from so many of the best; 0: `searcher.population`" },
    { "warmup.score", F_CHEAP, S, AT(warmup.score), 0, 0, 0, 0, SAME("params"), "the cheap score: more is better" },
    { "warmup.vote", F_VOTE, S, AT(warmup.vote), AT(warmup.n_vote), SCORE_COLUMNS, 0, 0, SAME("[]"),
      "instead of it the sum of log ranks in these: params, macs, and zero-cost scores, which workers compute first" },
    { "halving.steps", F_INTS, S, AT(halving.steps), AT(halving.n_steps), MAX_RUNGS, 1, 4096, SAME("[]"),
      "successive halving: curriculum steps of the rungs below `fidelity`, rising; none: no halving" },
    { "halving.inits", F_INTS, S, AT(halving.inits), AT(halving.n_inits), MAX_RUNGS, 1, MAX_INITS, SAME("[]"),
      "initialisations of these rungs; none: `fidelity.inits`" },
    { "halving.reduction", F_INT, S, AT(halving.reduction), 0, 0, 2, 100, SAME("3"), "the best one in so many of a rung goes on to the next" },
    { "racing.inits", F_INTS, S, AT(racing.inits), AT(racing.n_inits), MAX_RUNGS, 2, MAX_INITS, SAME("[]"),
      "more initialisations where a tie matters: so many in all after each round, rising, above `fidelity.inits`; none: no racing" },
    { "racing.among", F_INT, S, AT(racing.among), 0, 0, 1, RACING_MAX_AMONG, SAME("1"), "the race is about which so many are the best" },
    { "racing.z", F_REAL, S, AT(racing.z), 0, 0, JOB_ABOVE_0, 10, SAME("2"), "scores within so many standard errors of their difference cannot be told apart" },
    { "racing.after", F_INT, S, AT(racing.after), 0, 0, 2, 10000000, SAME("50"), "no race before so many results at `fidelity` are in" },
    { "racing.share", F_REAL, S, AT(racing.share), 0, 0, JOB_ABOVE_0, 1, SAME("0.25"), "at most this share of them takes part" },
    { "fidelity.steps", F_INT, S, AT(fidelity.steps), 0, 0, 0, 4096, SAME("0"), "curriculum steps; 0: all of them" },
    { "fidelity.inits", F_INT, S, AT(fidelity.inits), 0, 0, 1, MAX_INITS, SAME("2"), "independent initial weights; the score is the mean" },
    { "fidelity.valid_images", F_INT, S, AT(fidelity.valid_images), 0, 0, 1, 1000000, SAME("2000"), "real validation images, the same for all" },
    { "fidelity.checkpoints", F_INTS, S, AT(fidelity.checkpoint), AT(fidelity.n_checkpoints), MAX_CHECKPOINTS, 1, 4096, SAME("[]"),
      "accuracy is also taken after these steps, rising" },
    { "fidelity.lr_scales", F_REALS, S, AT(fidelity.lr_scale), AT(fidelity.n_lr_scales), MAX_SCALES, JOB_ABOVE_0, 100, SAME("[1]"),
      "score at each multiple of the learned step sizes, keep the best" },
    { "fidelity.channels", F_INT, S, AT(fidelity.proxy.channels), 0, 0, 0, PROXY_MAX_CHANNELS, SAME("0"),
      "nasbench201, nasnet: channels of the first stage; 0: as the space has it, 8" },
    { "fidelity.cells", F_INT, S, AT(fidelity.proxy.cells), 0, 0, 0, PROXY_MAX_CELLS, SAME("0"), "nasbench201, nasnet: cells a stage; 0: as the space has it, 1" },
    { "fidelity.downsample", F_INT, S, AT(fidelity.proxy.downsample), 0, 0, 0, PROXY_MAX_DOWNSAMPLE, SAME("0"),
      "the network averages its images over so many pixels a side first; 0 and 1: not" },
    { "scores.zero_cost", F_ZERO_COST, S, AT(scores.zero_cost), AT(scores.n_zero_cost), ZC_COUNT, 0, 0, SAME("[]"),
      "scores without training, taken beside it: synflow, naswot, jacob_cov, zico, snip, grad_norm" },
    { "scores.fuse", F_COLUMNS, S, AT(scores.fuse), AT(scores.n_fuse), SCORE_COLUMNS, 0, 0, SAME("[]"),
      "the fused score is the sum of log ranks in these: score, loss_sum, params, macs, latency, and what `scores.zero_cost` names" },
    { "scores.book", F_BOOL, S, AT(use_book), 0, 0, 0, 0, SAME("true"), "take what the score book knows, and file results there; false: compute everything" },
    { "latency.measure", F_BOOL, S, AT(latency.measure), 0, 0, 0, 0, SAME("false"), "measure a forward pass of every trial; `objectives` with `latency` ask for it, too" },
    { "latency.batch", F_INT, S, AT(latency.batch), 0, 0, 1, LATENCY_MAX_BATCH, SAME("1"), "images of that pass" },
    { "constraints.min_params", F_COUNT, S, AT(constraints.min_params), 0, 0, 0, 1e15, SAME("0"), "parameters, at least" },
    { "constraints.max_params", F_COUNT, S, AT(constraints.max_params), 0, 0, 0, 1e15, SAME("0"), "parameters, at most; 0: no limit" },
    { "constraints.min_macs", F_COUNT, S, AT(constraints.min_macs), 0, 0, 0, 1e15, SAME("0"), "multiply-adds an image, at least" },
    { "constraints.max_macs", F_COUNT, S, AT(constraints.max_macs), 0, 0, 0, 1e15, SAME("0"), "multiply-adds an image, at most; 0: no limit" },
    { "audit.share", F_REAL, S, AT(audit.share), 0, 0, 0, 0.9, SAME("0"), "so much of the job's multiply-adds goes into real training of a random sample of its candidates; 0: no audit" },
    { "audit.epochs", F_REAL, S, AT(audit.epochs), 0, 0, JOB_ABOVE_0, 10000, SAME("2"), "passes over the training split" },
    { "audit.min", F_INT, S, AT(audit.min), 0, 0, 3, 500, SAME("8"), "train at least so many, whatever the share; fewer decide nothing" },
    { "audit.max", F_INT, S, AT(audit.max), 0, 0, 3, 500, SAME("200"), "and at most so many" },
    { "audit.action", F_ACTION, S, AT(audit.action), 0, 0, 0, 0, SAME("warn"), "what happens when even the upper end of the correlation's interval is below the floor" },
    { "audit.floor", F_REAL, S, AT(audit.floor), 0, 0, -1, 1, SAME("0.3"), "Spearman's correlation of score and real accuracy that is asked for" },
    { "audit.batch", F_INT, S, AT(audit.batch), 0, 0, 2, 65536, SAME("128"), "images of a step of real training" },
    { "audit.lr", F_REAL, S, AT(audit.lr), 0, 0, JOB_ABOVE_0, 100, SAME("0.1"), "first step size, falling by a cosine to 0" },
    { "audit.momentum", F_REAL, S, AT(audit.momentum), 0, 0, 0, 0.9999, SAME("0.9"), "of SGD" },
    { "audit.weight_decay", F_REAL, S, AT(audit.weight_decay), 0, 0, 0, 1, SAME("5e-4"), "of SGD" },
    { "audit.flip", F_BOOL, S, AT(audit.flip), 0, 0, 0, 0, SAME("true"), "half of the images are mirrored" },
    { "audit.shift", F_INT, S, AT(audit.shift), 0, 0, 0, 64, SAME("2"), "images move by up to so many pixels" },
    { "audit.timeout", F_TIME, S, AT(audit.timeout_s), 0, 0, JOB_ABOVE_0, 2592000, SAME("1h"), "one training may take so long" },
    { "audit.control", F_BOOL, S, AT(audit.control), 0, 0, 0, 0, SAME("false"), "the audited are also scored on real batches, at the same fidelity" },
    { "audit.control_curriculum", F_REF, S, AT(audit.control_curriculum), AT(audit.control_curriculum_hash), 0, 0, 0, SAME(""),
      "those batches: a curriculum of a teacher of kind real, by name or hash" },
    { "audit.control_curriculum_hash", F_HASH, S, AT(audit.control_curriculum_hash), 0, 0, 0, 0, SAME(""), "filled in at submission: its content" },
    { "audit.every", F_INT, S, AT(audit.every), 0, 0, 0, 10000000, SAME("0"), "filled in at submission: one of so many candidates is audited" },
    { "audit.lag", F_INT, S, AT(audit.lag), 0, 0, 0, 100000000, SAME("0"), "filled in at submission: with action stop, a proposal waits for the audits of candidates so far before it" },
    { "teach.kind", F_TEACHER, T, AT(teach.kind), 0, 0, 0, 0, SAME("gtn"), "a generator (its order learned, of batches drawn, of images drawn, or its inputs noise), images learned one by one from real ones on, or real batches with a learned schedule (the control)" },
    { "teach.steps", F_INT, T, AT(teach.steps), 0, 0, 1, 1024, SAME("32"), "inner steps T of the curriculum" },
    { "teach.batch", F_INT, T, AT(teach.batch), 0, 0, 2, 4096, SAME("128"), "images B of a step" },
    { "teach.meta_steps", F_INT, T, AT(teach.meta_steps), 0, 0, 1, 10000000, SAME("500"), "outer steps" },
    { "teach.seconds", F_TIME, T, AT(teach.seconds), 0, 0, 0, 31536000, SAME("0"),
      "end after so long, if sooner; 0: no limit. A limit gives up bitwise repeatability" },
    { "teach.learners", F_INT, T, AT(teach.learners), 0, 0, 1, 256, SAME("4"), "learners drawn a meta-step" },
    { "teach.inits", F_INT, T, AT(teach.inits), 0, 0, 1, 256, SAME("1"), "initialisations of each, with real batches of their own: learners times inits train, at most 1024" },
    { "teach.meta_batch", F_INT, T, AT(teach.meta_batch), 0, 0, 1, 65536, SAME("512"), "real images of the outer loss" },
    { "teach.meta_at", F_META, T, AT(teach.meta_at), AT(teach.n_meta_at), MAX_CHECKPOINTS, 1, 1024, SAME("[]"),
      "real losses after earlier steps too, with these weights" },
    { "teach.lr", F_REAL, T, AT(teach.lr), 0, 0, JOB_ABOVE_0, 100, SAME("0.02"), "start of the learned step sizes; lars 0.015, rmsprop 0.002, adam 0.005" },
    { "teach.mu", F_REAL, T, AT(teach.mu), 0, 0, JOB_ABOVE_0, 0.9999, SAME("0.5"), "start of the learned momentum" },
    { "teach.inner.type", F_INNER, T, AT(teach.inner.type), 0, 0, 0, 0, SAME("sgd"), "the learners' optimiser" },
    { "teach.inner.eps", F_REAL, T, AT(teach.inner.eps), 0, 0, JOB_ABOVE_0, 1, SAME("1e-6"), "lars: added to the gradient's norm; rmsprop, adam (1e-5): inside the root and out" },
    { "teach.inner.scale_1d", F_REAL, T, AT(teach.inner.scale_1d), 0, 0, 0, 100, SAME("0.3"), "lars: factor of gradients of vectors" },
    { "teach.inner.beta2", F_REAL, T, AT(teach.inner.beta2), 0, 0, 0, 0.9999999, SAME("0.999"), "adam: decay of the mean square; rmsprop 0.99" },
    { "teach.inner.weight_decay", F_REAL, T, AT(teach.inner.weight_decay), 0, 0, 0, 1, SAME("0"), "times w, added to the gradient" },
    { "teach.inner.clip", F_REAL, T, AT(teach.inner.clip), 0, 0, 0, 1e9, SAME("0"), "the gradient is cut to this norm first; 0: off" },
    { "teach.inner.label_smoothing", F_REAL, T, AT(teach.inner.label_smoothing), 0, 0, 0, 0.9999999, SAME("0"),
      "labels in inner steps are mixed with the uniform distribution by so much" },
    { "teach.adam.lr", F_REAL, T, AT(teach.outer_lr), 0, 0, JOB_ABOVE_0, 1, SAME("0.002"), "the outer optimiser's step size" },
    { "teach.adam.lr_end", F_REAL, T, AT(teach.outer_lr_end), 0, 0, 0, 1, SAME("0.1"), "falls by a cosine to this fraction" },
    { "teach.adam.schedule", F_REAL, T, AT(teach.outer_schedule), 0, 0, 0, 1000, SAME("1"), "times lr: the step size of the learned step sizes and momenta" },
    { "teach.adam.beta1", F_REAL, T, AT(teach.outer_beta1), 0, 0, 0, 0.999999, SAME("0.9"), "decay of the mean" },
    { "teach.adam.beta2", F_REAL, T, AT(teach.outer_beta2), 0, 0, 0, 0.999999, SAME("0.999"), "decay of the mean square" },
    { "teach.adam.eps", F_REAL, T, AT(teach.outer_eps), 0, 0, JOB_ABOVE_0, 1, SAME("1e-8"), "added to the root" },
    { "teach.clip", F_REAL, T, AT(teach.clip), 0, 0, 0, 1000000, SAME("2"), "limit of the meta-gradient's norm, times its running mean; 0: off" },
    { "teach.z_dim", F_INT, T, AT(teach.z_dim), 0, 0, 1, 65536, SAME("64"), "learned inputs of the generator, an image" },
    { "teach.g_hidden", F_INT, T, AT(teach.g_hidden), 0, 0, 1, 65536, SAME("256"), "units of its hidden layer" },
    { "teach.g_channels1", F_INT, T, AT(teach.g_channels1), 0, 0, 1, 4096, SAME("32"), "channels at a quarter of the size" },
    { "teach.g_channels2", F_INT, T, AT(teach.g_channels2), 0, 0, 1, 4096, SAME("16"), "channels at half the size" },
    { "teach.warm_start", F_INT, T, AT(teach.warm_start), 0, 0, 0, 100000, SAME("0"), "passes that fit the generator's images to real ones before the first meta-step" },
    { "teach.learn_labels", F_BOOL, T, AT(teach.learn_labels), 0, 0, 0, 0, SAME("false"), "soft labels are learned too" },
    { "teach.learners_mix", F_MIX, T, AT(teach.mix_space), AT(teach.n_mix), MAX_MIX, JOB_ABOVE_0, 1000000, SAME("[{space: chain, weight: 1}]"),
      "the spaces learners are drawn from, and how often" },
    { "teach.max_macs", F_COUNT, T, AT(teach.max_macs), 0, 0, 0, 1e15, SAME("1.5M"), "larger learners are drawn again; 0: no limit" },
    { "teach.max_params", F_COUNT, T, AT(teach.max_params), 0, 0, 0, 1e15, SAME("0"), "likewise, parameters" },
    { "teach.eval_every", F_INT, T, AT(teach.eval_every), 0, 0, 1, 10000000, SAME("25"), "meta-steps between evaluations on fresh learners" },
    { "teach.checkpoint_every", F_INT, T, AT(teach.checkpoint_every), 0, 0, 1, 10000000, SAME("25"), "meta-steps between checkpoints" },
    { "verify.of", F_NAME, V, AT(verify.of), 0, 0, 0, 0, SAME(""), "the search job, by number or name" },
    { "verify.top", F_INT, V, AT(verify.top), 0, 0, 0, 1000, SAME("3"), "train so many of its best" },
    { "verify.random", F_INT, V, AT(verify.random), 0, 0, 0, 1000, SAME("6"), "and so many drawn from the others" },
    { "verify.arch", F_ARCHS, V, AT(verify.arch), AT(verify.n_arch), MAX_ARCH_LIST, 0, 0, SAME("[]"), "or these architectures of `space`, without `verify.of`" },
    { "verify.epochs", F_REAL, V, AT(verify.epochs), 0, 0, JOB_ABOVE_0, 10000, SAME("8"), "passes over the training split" },
    { "verify.batch", F_INT, V, AT(verify.batch), 0, 0, 2, 65536, SAME("128"), "images of a step" },
    { "verify.lr", F_REAL, V, AT(verify.lr), 0, 0, JOB_ABOVE_0, 100, SAME("0.1"), "first step size, falling by a cosine to 0" },
    { "verify.momentum", F_REAL, V, AT(verify.momentum), 0, 0, 0, 0.9999, SAME("0.9"), "of SGD" },
    { "verify.weight_decay", F_REAL, V, AT(verify.weight_decay), 0, 0, 0, 1, SAME("5e-4"), "of SGD" },
    { "verify.flip", F_BOOL, V, AT(verify.flip), 0, 0, 0, 0, SAME("true"), "half of the images are mirrored" },
    { "verify.shift", F_INT, V, AT(verify.shift), 0, 0, 0, 64, SAME("2"), "images move by up to so many pixels" },
    { "verify.seeds", F_INT, V, AT(verify.seeds), 0, 0, 1, 100, SAME("1"), "trainings of each architecture" },
    { "verify.channels", F_INT, V, AT(verify.proxy.channels), 0, 0, 0, PROXY_MAX_CHANNELS, SAME("0"),
      "nasbench201, nasnet: channels of the first stage; 0: as the search or the space has it" },
    { "verify.cells", F_INT, V, AT(verify.proxy.cells), 0, 0, 0, PROXY_MAX_CELLS, SAME("0"), "nasbench201, nasnet: cells a stage; 0: likewise" },
};
#define N_KEYS ((int)(sizeof table / sizeof *table))
_Static_assert(sizeof table / sizeof *table <= JOB_KEYS_MAX, "line numbers are kept for every key");

static const char *const searchers[] = { "random", "evolution", "local", "nsga2", "external" };
#define N_SEARCHERS ((int)(sizeof searchers / sizeof *searchers))
static const char *const cheap_scores[] = { "params", "macs" };
static const char *const teachers[] = { "gtn", "gtn-batches", "gtn-shuffled", "gtn-noise", "distilled", "real" };
static const char *const actions[AUDIT_ACTION_COUNT] = { "warn", "stop", "none" };
static const char *const devices[DEVICE_CLASS_COUNT] = { "cpu", "cuda", "cuda-tf32", "cuda-bf16", "any" };
static const char *const inners[INNER_TYPE_COUNT] = { "sgd", "lars", "nesterov", "rmsprop", "adam" };

const struct job_key *job_key_at(int i)
{
    return i >= 0 && i < N_KEYS ? &table[i] : NULL;
}

int job_key_index(const char *path)
{
    for (int i = 0; i < N_KEYS; i++)
        if (strcmp(table[i].path, path) == 0)
            return i;
    return -1;
}

static void range_text(const struct job_key *k, char *buf, size_t cap)
{
    if (k->max >= 1e15)
        snprintf(buf, cap, "at least %g", k->min);
    else if (k->min == JOB_ABOVE_0)
        snprintf(buf, cap, "above 0, at most %.10g", k->max);
    else
        snprintf(buf, cap, "%.10g to %.10g", k->min, k->max);
}

const char *job_key_type(const struct job_key *k)
{
    static _Thread_local char buf[160];
    char range[64];
    range_text(k, range, sizeof range);
    switch (k->form) {
    case F_INT:
    case F_SEED:     snprintf(buf, sizeof buf, "integer, %s", range); break;
    case F_COUNT:    snprintf(buf, sizeof buf, "count such as 100k or 0.5M"); break;
    case F_REAL:     snprintf(buf, sizeof buf, "number, %s", range); break;
    case F_TIME:     snprintf(buf, sizeof buf, "time such as 90s, 5m or 2h"); break;
    case F_BOOL:     snprintf(buf, sizeof buf, "true or false"); break;
    case F_NAME:     snprintf(buf, sizeof buf, "name"); break;
    case F_REF:      snprintf(buf, sizeof buf, "name or hash"); break;
    case F_HASH:     snprintf(buf, sizeof buf, "hash"); break;
    case F_SPACE:    snprintf(buf, sizeof buf, "search space, by name, hash or path"); break;
    case F_SEARCHER: snprintf(buf, sizeof buf, "random, evolution, local, nsga2 or external"); break;
    case F_CHEAP:    snprintf(buf, sizeof buf, "params or macs"); break;
    case F_TEACHER:  snprintf(buf, sizeof buf, "gtn, gtn-batches, gtn-shuffled, gtn-noise, distilled or real"); break;
    case F_INNER:    snprintf(buf, sizeof buf, "sgd, lars, nesterov, rmsprop or adam"); break;
    case F_ACTION:   snprintf(buf, sizeof buf, "warn, stop or none"); break;
    case F_DEVICE:   snprintf(buf, sizeof buf, "cpu, cuda, cuda-tf32, cuda-bf16 or any"); break;
    case F_INTS:     snprintf(buf, sizeof buf, "list of up to %d integers, %s", k->cap, range); break;
    case F_REALS:    snprintf(buf, sizeof buf, "list of up to %d numbers, %s", k->cap, range); break;
    case F_ZERO_COST: snprintf(buf, sizeof buf, "list of zero-cost scores"); break;
    case F_COLUMNS:
    case F_VOTE:     snprintf(buf, sizeof buf, "list of columns"); break;
    case F_MIX:      snprintf(buf, sizeof buf, "list of up to %d {space, weight}", k->cap); break;
    case F_OBJECTIVES: snprintf(buf, sizeof buf, "list of up to %d {metric, goal}", k->cap); break;
    case F_META:     snprintf(buf, sizeof buf, "list of up to %d {step, weight}", k->cap); break;
    default:         snprintf(buf, sizeof buf, "list of up to %d architectures", k->cap); break;
    }
    return buf;
}

/* ---- scalars ---- */

struct reader {
    const struct job_key *k;
    const struct jtree   *t;
    struct problems      *p;
};

static const char *found(const struct jnode *v, char *buf, size_t cap)
{
    if (v->kind != J_SCALAR)
        snprintf(buf, cap, "%s", v->kind == J_LIST ? "a list" : "a group of keys");
    else if (!v->plain)
        snprintf(buf, cap, "the text \"%.40s\"", v->text);
    else
        snprintf(buf, cap, *v->text ? "%.40s" : "nothing", v->text);
    return buf;
}

static bool wrong(const struct reader *r, const struct jnode *v)
{
    char        buf[64];
    const char *type = job_key_type(r->k), *article = strchr("ctnhsl", *type) && r->k->form != F_BOOL && r->k->form != F_INNER && r->k->form != F_ACTION && r->k->form != F_DEVICE ? "a " : "";
    problem(r->p, v->line, "'%s' must be %s%s, not %s", r->k->path, *type == 'i' ? "an " : article, type, found(v, buf, sizeof buf));
    return false;
}

/* A decimal number at the start of `s`; where it ends, or NULL. No hexadecimal, no inf, no nan. */
static const char *number(const char *s, double *out)
{
    char *end;
    if (!isdigit((unsigned char)s[*s == '-' || *s == '+' || *s == '.']) || strpbrk(s, "xXpP"))
        return NULL;
    *out = strtod(s, &end);
    return isfinite(*out) ? end : NULL;
}

static bool in_range(const struct job_key *k, double v)
{
    return v >= k->min && v <= k->max;
}

static bool read_int(const struct reader *r, const struct jnode *v, long long *out)
{
    char *end;
    if (v->kind != J_SCALAR || !v->plain || !*v->text || isspace((unsigned char)*v->text))
        return wrong(r, v);
    errno = 0;
    *out = strtoll(v->text, &end, 10);
    return (*end || errno || !in_range(r->k, (double)*out)) ? wrong(r, v) : true;
}

static bool read_real(const struct reader *r, const struct jnode *v, double *out)
{
    const char *end = v->kind == J_SCALAR && v->plain ? number(v->text, out) : NULL;
    return (!end || *end || !in_range(r->k, *out)) ? wrong(r, v) : true;
}

/* A number with a unit: "5m" of seconds, "0.5M" of things. Quoted ones too: JSON has no other way to write them. */
static bool read_unit(const struct reader *r, const struct jnode *v, const char *units, const double *factor, double *out)
{
    const char *end = v->kind == J_SCALAR ? number(v->text, out) : NULL, *u;
    if (!end || (*end && (end[1] || !(u = strchr(units, *end)))))
        return wrong(r, v);
    if (*end)
        *out *= factor[u - units];
    return in_range(r->k, *out) ? true : wrong(r, v);
}

static bool read_count(const struct reader *r, const struct jnode *v, uint64_t *out)
{
    double x;
    if (!read_unit(r, v, "kMG", (const double[]){ 1e3, 1e6, 1e9 }, &x))
        return false;
    *out = (uint64_t)llround(x);
    return fabs(x - (double)*out) <= 1e-6 * (x + 1) ? true : wrong(r, v);
}

static bool read_bool(const struct reader *r, const struct jnode *v, bool *out)
{
    static const char *const words[] = { "true", "yes", "on", "false", "no", "off" };
    for (int i = 0; i < 6 && v->kind == J_SCALAR && v->plain; i++)
        if (strcasecmp(v->text, words[i]) == 0) {
            *out = i < 3;
            return true;
        }
    return wrong(r, v);
}

/* Letters, digits, '.', '_', '-'; not longer than NAME_MAX_LEN. */
static bool read_name(const struct reader *r, const struct jnode *v, char *out)
{
    if (v->kind != J_SCALAR)
        return wrong(r, v);
    size_t n = strlen(v->text);
    if (n == 0 || n > NAME_MAX_LEN || !isalnum((unsigned char)*v->text)) {
        problem(r->p, v->line, "'%s' must be a name of 1 to %d characters that opens with a letter or digit", r->k->path, NAME_MAX_LEN);
        return false;
    }
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)v->text[i]) && !strchr("._-", v->text[i])) {
            problem(r->p, v->line, "'%s': a name has letters, digits, '.', '_' and '-' only, not '%c'", r->k->path, v->text[i]);
            return false;
        }
    memcpy(out, v->text, n + 1);
    return true;
}

static bool is_hash(const char *s)
{
    return strlen(s) == HASH_HEX_LEN && strspn(s, "0123456789abcdef") == HASH_HEX_LEN;
}

static void read_hash(const struct reader *r, const struct jnode *v, char *out)
{
    if (v->kind == J_SCALAR && is_hash(v->text))
        memcpy(out, v->text, HASH_HEX_LEN + 1);
    else
        problem(r->p, v->line, "'%s' must be %d lower-case hexadecimal digits", r->k->path, HASH_HEX_LEN);
}

/* A name, or a whole hash: then the name is its beginning. */
static void read_ref(const struct reader *r, const struct jnode *v, char *name, char *hash)
{
    if (v->kind == J_SCALAR && is_hash(v->text)) {
        memcpy(hash, v->text, HASH_HEX_LEN + 1);
        snprintf(name, sizeof(name_str), "%.16s", v->text);
    } else if (read_name(r, v, name)) {
        *hash = 0;
    }
}

/* One of some words; its index, or -1. */
static int read_word(const struct reader *r, const struct jnode *v, const char *const *words, int n)
{
    char near[96], buf[64], list[160] = "";
    for (int i = 0; i < n && v->kind == J_SCALAR; i++)
        if (strcmp(v->text, words[i]) == 0)
            return i;
    for (int i = 0; i < n; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", words[i]);
    if (v->kind != J_SCALAR)
        problem(r->p, v->line, "'%s' must be one of %s, not %s", r->k->path, list, found(v, buf, sizeof buf));
    else
        problem(r->p, v->line, "'%s' must be one of %s, not '%.40s'%s", r->k->path, list, v->text, suggest_text(near, sizeof near, v->text, words, n));
    return -1;
}

/* A built-in or imported space, an identity, a whole hash, or the path of a file: what there is, the coordinator knows. */
static void read_space(const struct reader *r, const struct jnode *v, char *name, char *hash)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@";
    if (v->kind == J_SCALAR && is_hash(v->text)) {
        memcpy(hash, v->text, HASH_HEX_LEN + 1);
        memset(name, 0, sizeof(name_str)); /* equal specs are equal bytes */
        snprintf(name, sizeof(name_str), "%.*s", SPACE_FILE_ID_HASH, v->text);
        return;
    }
    if (v->kind != J_SCALAR) {
        wrong(r, v);
        return;
    }
    size_t n = strlen(v->text);
    bool path = space_is_path(v->text);
    if (n == 0 || n > NAME_MAX_LEN || (!path && (!isalnum((unsigned char)*v->text) || v->text[strspn(v->text, letters)]))) {
        problem(r->p, v->line, "'%s' must be %s of 1 to %d characters, not '%.60s'", r->k->path, path ? "a path" : "the name or path of a space",
                NAME_MAX_LEN, v->text);
        return;
    }
    memset(name, 0, sizeof(name_str));
    memcpy(name, v->text, n); /* a hash that is given beside it counts where it is the name's (coordinator/spaces.c) */
}

/* ---- lists ---- */

/* One item {first: …, second: …}: the values of its keys, NULL where absent; the first must be there. */
static bool read_items(const struct reader *r, const struct jnode *item, const char *const *key, int n, const struct jnode **const *to)
{
    char near[96];
    for (int k = 0; k < n; k++)
        *to[k] = NULL;
    if (item->kind != J_MAP) {
        problem(r->p, item->line, "'%s': each item must be {%s: …, %s: …}", r->k->path, key[0], key[1]);
        return false;
    }
    for (int i = item->first; i; i = r->t->node[i].next) {
        const struct jnode *m = &r->t->node[i];
        int k = 0;
        while (k < n && strcmp(m->key, key[k]) != 0)
            k++;
        if (k == n || *to[k]) {
            problem(r->p, m->line, "'%s': %s key '%.40s'%s", r->k->path, k < n ? "repeated" : "unknown", m->key,
                    k < n ? "" : suggest_text(near, sizeof near, m->key, key, 2));
            return false;
        }
        *to[k] = m;
    }
    if (!*to[0])
        problem(r->p, item->line, "'%s': an item has no '%s'", r->k->path, key[0]);
    return *to[0] != NULL;
}

static bool read_pair(const struct reader *r, const struct jnode *item, const char *first, const char *second, const struct jnode **a,
                      const struct jnode **w)
{
    return read_items(r, item, (const char *const[]){ first, second }, 2, (const struct jnode **const[]){ a, w });
}

/* The weight of an item of learners_mix or meta_at: above 0, 1 where not given. */
static bool read_weight(const struct reader *r, const struct jnode *v, double *out)
{
    struct job_key k = { .path = r->k->path, .form = F_REAL, .min = JOB_ABOVE_0, .max = 1e6 };
    *out = 1;
    return v ? read_real(&(struct reader){ &k, r->t, r->p }, v, out) : true;
}

/* The number of a zero-cost score, or of a column. Of those that cannot vote job_check says why. */
static int read_column(const struct reader *r, const struct jnode *v)
{
    const char *names[SCORE_COLUMNS];
    const enum jform form = r->k->form;
    int at[SCORE_COLUMNS], n = 0, any = form == F_VOTE && v->kind == J_SCALAR ? score_column_from(v->text) : -1;
    if (any >= 0)
        return any;
    for (int i = form == F_ZERO_COST ? COLUMN_ZERO_COST : 0; i < SCORE_COLUMNS; i++)
        if (form != F_VOTE || job_column_votes(i)) {
            names[n] = score_columns[i].name;
            at[n++] = form == F_ZERO_COST ? i - COLUMN_ZERO_COST : i;
        }
    int k = read_word(r, v, names, n);
    return k < 0 ? k : at[k];
}

/* {metric: …, goal: …}; without a goal a score is to be high and a cost low. */
static bool read_objective(const struct reader *r, const struct jnode *item, struct objective *to)
{
    static const char *const goals[] = { "min", "max" };
    const struct job_key metric_key = { .path = "objectives: metric" }, goal_key = { .path = "objectives: goal" };
    const struct jnode *metric, *goal;
    const char *names[METRIC_COUNT];
    for (int i = 0; i < METRIC_COUNT; i++)
        names[i] = metric_name((enum metric)i);
    if (!read_pair(r, item, "metric", "goal", &metric, &goal))
        return false;
    int m = read_word(&(struct reader){ &metric_key, r->t, r->p }, metric, names, METRIC_COUNT),
        max = goal ? read_word(&(struct reader){ &goal_key, r->t, r->p }, goal, goals, 2) : m == METRIC_SCORE;
    if (m < 0 || max < 0)
        return false;
    *to = (struct objective){ (enum metric)m, max };
    return true;
}

/* {space: …, weight: …}; at submission `hash` joins them. */
static bool read_mix(const struct reader *r, const struct jnode *item, struct teach_cfg *t, int i)
{
    const struct job_key key = { .path = "teach.learners_mix: hash", .form = F_HASH };
    const struct jnode *space, *weight, *hash;
    if (!read_items(r, item, (const char *const[]){ "space", "weight", "hash" }, 3, (const struct jnode **const[]){ &space, &weight, &hash }) ||
        !read_weight(r, weight, &t->mix_weight[i]))
        return false;
    read_space(r, space, t->mix_space[i], t->mix_hash[i]);
    if (hash)
        read_hash(&(struct reader){ &key, r->t, r->p }, hash, t->mix_hash[i]);
    return t->mix_space[i][0] != 0;
}

static bool read_item(const struct reader *r, const struct jnode *v, struct job_spec *s, char *base, int i)
{
    const struct jnode *a, *w;
    long long           n;
    switch (r->k->form) {
    case F_INTS:
        if (!read_int(r, v, &n))
            return false;
        ((int *)base)[i] = (int)n;
        return true;
    case F_REALS:
        return read_real(r, v, &((double *)base)[i]);
    case F_ZERO_COST:
    case F_COLUMNS:
    case F_VOTE:
        return (((int *)base)[i] = read_column(r, v)) >= 0;
    case F_MIX:
        return read_mix(r, v, &s->teach, i);
    case F_OBJECTIVES:
        return read_objective(r, v, &s->objective[i]);
    case F_META:
        if (!read_pair(r, v, "step", "weight", &a, &w) || !read_weight(r, w, &s->teach.meta_weight[i]) || !read_int(r, a, &n))
            return false;
        s->teach.meta_at[i] = (int)n;
        return true;
    default:
        if (v->kind != J_SCALAR || !*v->text || strlen(v->text) >= ARCH_TEXT_MAX) {
            problem(r->p, v->line, "'%s': an architecture is a text of 1 to %d characters", r->k->path, ARCH_TEXT_MAX - 1);
            return false;
        }
        strcpy(s->verify.arch[i], v->text); /* job_check puts it into canonical form */
        return true;
    }
}

static void read_list(const struct reader *r, const struct jnode *v, struct job_spec *s)
{
    char *base = (char *)s + r->k->off;
    int   n = 0;
    if (v->kind != J_LIST) {
        wrong(r, v);
        return;
    }
    if (r->k->form == F_MIX) {
        memset(s->teach.mix_space, 0, sizeof s->teach.mix_space);
        memset(s->teach.mix_hash, 0, sizeof s->teach.mix_hash);
    }
    for (int i = v->first; i; i = r->t->node[i].next, n++) {
        if (n == r->k->cap) {
            problem(r->p, r->t->node[i].line, "'%s' has more than %d items", r->k->path, r->k->cap);
            return;
        }
        if (!read_item(r, &r->t->node[i], s, base, n))
            return;
    }
    *(int *)((char *)s + r->k->off_n) = n;
}

void job_key_read(const struct job_key *k, const struct jtree *t, const struct jnode *v, struct job_spec *s, struct problems *p)
{
    struct reader r = { k, t, p };
    void     *at = (char *)s + k->off;
    long long n;
    double    x;
    int       word;
    switch (k->form) {
    case F_INT:
        if (read_int(&r, v, &n))
            *(int *)at = (int)n;
        break;
    case F_SEED:
        if (read_int(&r, v, &n))
            *(uint64_t *)at = (uint64_t)n;
        break;
    case F_COUNT: read_count(&r, v, at); break;
    case F_REAL:
        if (read_real(&r, v, &x))
            *(double *)at = x;
        break;
    case F_TIME:
        if (read_unit(&r, v, "smhd", (const double[]){ 1, 60, 3600, 86400 }, &x))
            *(double *)at = x;
        break;
    case F_BOOL: read_bool(&r, v, at); break;
    case F_NAME: read_name(&r, v, at); break;
    case F_REF:  read_ref(&r, v, at, (char *)s + k->off_n); break;
    case F_HASH:
        read_hash(&r, v, at);
        break;
    case F_SPACE: read_space(&r, v, at, (char *)s + k->off_n); break;
    case F_SEARCHER:
        if ((word = read_word(&r, v, searchers, N_SEARCHERS)) >= 0)
            snprintf(at, sizeof(name_str), "%s", searchers[word]);
        break;
    case F_CHEAP:
        if ((word = read_word(&r, v, cheap_scores, 2)) >= 0)
            snprintf(at, sizeof(name_str), "%s", cheap_scores[word]);
        break;
    case F_TEACHER:
        if ((word = read_word(&r, v, teachers, sizeof teachers / sizeof *teachers)) >= 0)
            snprintf(at, sizeof(name_str), "%s", teachers[word]);
        break;
    case F_INNER:
        if ((word = read_word(&r, v, inners, INNER_TYPE_COUNT)) >= 0)
            *(enum inner_type *)at = (enum inner_type)word;
        break;
    case F_ACTION:
        if ((word = read_word(&r, v, actions, AUDIT_ACTION_COUNT)) >= 0)
            *(enum audit_action *)at = (enum audit_action)word;
        break;
    case F_DEVICE:
        if ((word = read_word(&r, v, devices, DEVICE_CLASS_COUNT)) >= 0)
            *(enum device_class *)at = (enum device_class)word;
        break;
    default: read_list(&r, v, s); break;
    }
}

struct teach_cfg job_inner_defaults(enum inner_type t)
{
    static const double lr[INNER_TYPE_COUNT] = { [INNER_SGD] = 0.02, [INNER_LARS] = 0.015, [INNER_NESTEROV] = 0.02, [INNER_RMSPROP] = 0.002, [INNER_ADAM] = 0.005 };
    return (struct teach_cfg){ .lr = lr[t], .inner = inner_defaults(t) };
}

void job_defaults(struct job_spec *s, enum job_kind kind)
{
    memset(s, 0, sizeof *s);
    s->kind = kind;
    struct problems p = { 0 };
    struct jtree    none = { 0 };
    for (int i = 0; i < N_KEYS; i++) {
        const char *def = table[i].def[kind];
        if (!(table[i].kinds & 1u << kind) || !def || !*def || table[i].form >= F_INTS)
            continue;
        struct jnode v = { .plain = true, .text = (char *)(uintptr_t)def };
        job_key_read(&table[i], &none, &v, s, &p);
    }
    assert(p.n == 0);
    if (kind == JOB_SEARCH) { /* the lists that do not start empty */
        s->fidelity.n_lr_scales = 1;
        s->fidelity.lr_scale[0] = 1;
        for (int i = METRIC_SCORE; i <= METRIC_MACS; i++) /* a latency is measured where it is asked for */
            s->objective[s->n_objectives++] = (struct objective){ (enum metric)i, i == METRIC_SCORE };
    } else if (kind == JOB_TEACH) {
        s->teach.n_mix = 1;
        strcpy(s->teach.mix_space[0], "chain");
        s->teach.mix_weight[0] = 1;
    }
}

/* ---- JSON ---- */

static json_t *list_json(const struct job_key *k, const struct job_spec *s)
{
    const char *base = (const char *)s + k->off;
    int         n = *(const int *)((const char *)s + k->off_n);
    json_t     *a = json_array();
    for (int i = 0; a && i < n; i++) {
        json_t *v;
        switch (k->form) {
        case F_INTS:  v = json_integer(((const int *)base)[i]); break;
        case F_REALS: v = json_real(((const double *)base)[i]); break;
        case F_ZERO_COST: v = json_string(zero_cost_table[((const int *)base)[i]].name); break;
        case F_COLUMNS:
        case F_VOTE:  v = json_string(score_columns[((const int *)base)[i]].name); break;
        case F_MIX:
            v = json_pack("{s:s, s:f}", "space", s->teach.mix_space[i], "weight", s->teach.mix_weight[i]);
            if (s->teach.mix_hash[i][0] && json_object_set_new(v, "hash", json_string(s->teach.mix_hash[i])) < 0)
                json_decref(v), v = NULL;
            break;
        case F_OBJECTIVES:
            v = json_pack("{s:s, s:s}", "metric", metric_name(s->objective[i].metric), "goal", s->objective[i].max ? "max" : "min");
            break;
        case F_META:  v = json_pack("{s:i, s:f}", "step", s->teach.meta_at[i], "weight", s->teach.meta_weight[i]); break;
        default:      v = json_string(s->verify.arch[i]); break;
        }
        if (json_array_append_new(a, v) < 0) { /* NULL v fails too */
            json_decref(a);
            return NULL;
        }
    }
    return a;
}

json_t *job_key_json(const struct job_key *k, const struct job_spec *s)
{
    const void *at = (const char *)s + k->off;
    switch (k->form) {
    case F_INT:   return json_integer(*(const int *)at);
    case F_COUNT:
    case F_SEED:  return json_integer((json_int_t)*(const uint64_t *)at);
    case F_REAL:
    case F_TIME:  return json_real(*(const double *)at);
    case F_BOOL:  return json_boolean(*(const bool *)at);
    case F_INNER: return json_string(inner_name(*(const enum inner_type *)at));
    case F_ACTION: return json_string(audit_action_name(*(const enum audit_action *)at));
    case F_DEVICE: return json_string(device_class_name(*(const enum device_class *)at));
    case F_NAME: case F_REF: case F_HASH: case F_SPACE: case F_SEARCHER: case F_CHEAP: case F_TEACHER:
        return *(const char *)at ? json_string(at) : NULL;
    default:      return list_json(k, s);
    }
}
