/* job.h - what a user submits, what a worker is given, what comes back. Plain structs: the job file parser
 * (jobfile.c), the wire, the store and the worker all speak these. Documented for users in docs/job-file.md.
 * Strings are fixed buffers so that a spec is copied by assignment. */
#ifndef DIDACT_JOB_H
#define DIDACT_JOB_H

#include "common/err.h"
#include "common/inner.h"
#include "common/space.h"
#include "common/zero_cost.h"

#include <stdbool.h>
#include <stdint.h>

#define NAME_MAX_LEN   63
#define HASH_HEX_LEN   64        /* BLAKE2b-256 of a blob, hex */
#define MAX_CHECKPOINTS 16
#define MAX_INITS      64
#define MAX_SCALES     4
#define MAX_RUNGS      8         /* of successive halving, below `fidelity`; and of racing, above it */
#define MAX_ARCH_LIST  64
#define RACING_MAX_AMONG 100
#define MAX_MIX        8
#define JOB_TEXT_MAX   65536     /* bytes of a job file */

typedef char name_str[NAME_MAX_LEN + 1];
typedef char hash_str[HASH_HEX_LEN + 1]; /* "" means none */

enum job_kind { JOB_TEACH, JOB_SEARCH, JOB_VERIFY, JOB_KIND_COUNT };
enum job_state { JOB_QUEUED, JOB_RUNNING, JOB_PAUSED, JOB_STOPPING, JOB_SUCCEEDED, JOB_FAILED, JOB_CANCELLED, JOB_STATE_COUNT };
enum trial_state { TRIAL_WAITING, TRIAL_RUNNING, TRIAL_SCORED, TRIAL_PRUNED, TRIAL_FAILED, TRIAL_CANCELLED, TRIAL_STATE_COUNT };
enum fail_reason { FAIL_NONE, FAIL_NAN, FAIL_OOM, FAIL_TIMEOUT, FAIL_CRASH, FAIL_INPUT, FAIL_REASON_COUNT };

/* Where learners are trained. Scores of one class are the same facts on every device of it; ANY takes whatever a worker has, and gives
 * up replay to the bit. */
enum device_class { DEVICE_CPU, DEVICE_CUDA, DEVICE_CUDA_TF32, DEVICE_CUDA_BF16, DEVICE_ANY, DEVICE_CLASS_COUNT };
const char *device_class_name(enum device_class d); /* "cpu" … */
int device_class_from(const char *s);               /* -1 on no match */
static inline bool device_class_any_cpu(enum device_class d) { return d == DEVICE_CPU || d == DEVICE_ANY; } /* of a job: a CPU will do */
void engine_name(enum device_class d, name_str out); /* part of a score's identity: engine_version.h's, with the device where it is not the CPU */

const char *job_kind_name(enum job_kind k);       /* "teach" … ; the _from functions return -1 on no match */
const char *job_state_name(enum job_state s);
const char *trial_state_name(enum trial_state s);
const char *fail_reason_name(enum fail_reason r); /* "nan" … */
int job_kind_from(const char *s);
int job_state_from(const char *s);
int trial_state_from(const char *s);
int fail_reason_from(const char *s);

/* Fidelity of a score: how much is spent on one candidate. */
struct fidelity {
    int    steps;               /* curriculum steps; 0: all of them */
    int    inits;               /* independent initial weights, 1 … MAX_INITS */
    int    valid_images;        /* held-out real images (the same fixed ones for every candidate) */
    int    n_checkpoints;       /* accuracy is also taken after these steps */
    int    checkpoint[MAX_CHECKPOINTS];
    int    n_lr_scales;         /* score at each multiple of the learned lr, take the best (1: just 1.0) */
    double lr_scale[MAX_SCALES];
    int    first_init;          /* these are initialisations first_init, +1, …: those before are known (racing) */
    struct proxy proxy;         /* the network's reduction; zeros: the space's own skeleton */
};

struct constraints { /* 0: no limit. Hold before a trial is created. */
    uint64_t min_params, max_params, min_macs, max_macs;
};

/* Columns of a trial by which it can be ranked (common/score_column.h); the zero-cost scores follow the named ones. */
enum { COLUMN_SCORE, COLUMN_LOSS_SUM, COLUMN_PARAMS, COLUMN_MACS, COLUMN_LATENCY, COLUMN_ZERO_COST, SCORE_COLUMNS = COLUMN_ZERO_COST + ZC_COUNT };

struct scores_cfg {
    int n_zero_cost, zero_cost[ZC_COUNT];  /* computed beside the training: enum zero_cost */
    int n_fuse, fuse[SCORE_COLUMNS];       /* columns of the fused score; none: there is none */
};

struct latency_cfg {            /* milliseconds of a forward pass, measured by whoever scores the trial: no pure function of anything */
    bool measure;               /* an objective `latency` asks for it, too: job_latency_batch */
    int  batch;
};
#define LATENCY_MAX_BATCH 256

/* What a search is after: searcher nsga2 and the Pareto front of its results. */
#define MAX_OBJECTIVES 4
enum metric { METRIC_SCORE, METRIC_PARAMS, METRIC_MACS, METRIC_LATENCY, METRIC_COUNT };
struct objective { enum metric metric; bool max; };
const char *metric_name(enum metric m); /* "score" …; -1 where none has this name */
int metric_from(const char *s);

struct searcher_cfg {
    name_str name;              /* common/search/search.c has the table */
    int      population;        /* evolution: how many of the newest survive; nsga2: of the fittest */
    int      sample;            /* evolution: tournament size */
};

struct warmup_cfg {
    int      candidates;        /* drawn and ranked by a cheap score before the first trial; 0: none */
    int      keep;              /* so many of the best are what the search starts from; 0: the searcher's population */
    name_str score;             /* common/search/warmup.c has the table */
    int      n_vote, vote[SCORE_COLUMNS]; /* instead: the sum of log ranks in these, params, macs and zero-cost scores; none: `score` */
};

/* Successive halving: rung r < n_steps is scored with these steps and initialisations, the top rung as `fidelity` says. */
struct halving_cfg {
    int      n_steps, steps[MAX_RUNGS]; /* n_steps 0: no halving */
    int      n_inits, inits[MAX_RUNGS]; /* none: fidelity.inits at every rung */
    int      reduction;                 /* the best 1/reduction of a rung go on */
};

/* Racing: rung halving.n_steps + k is the k-th round: as `fidelity`, with inits[k - 1] initialisations in all. */
struct racing_cfg {
    int      n_inits, inits[MAX_RUNGS]; /* n_inits 0: no racing */
    int      among;                     /* it is about which so many are the best */
    double   z;                         /* standard errors of a difference within which two cannot be told apart */
    int      after;                     /* not before so many results of `fidelity` are in */
    double   share;                     /* at most this share of them take part */
};

#define TEACH_MAX_LEARNERS 1024

struct teach_cfg {
    name_str kind;              /* "gtn", "distilled", "real" …: worker/teacher_kind.c has the table */
    int      steps, batch;      /* T, B */
    int      meta_steps;        /* outer steps; the job ends at whichever of this and seconds comes first */
    double   seconds;           /* 0: no limit in time. A limit in seconds gives up bitwise repeatability; outputs say so */
    int      learners;          /* networks drawn a meta-step */
    int      inits;             /* learners of each of them: learners * inits train a meta-step, at most TEACH_MAX_LEARNERS */
    int      meta_batch;        /* real images of the outer loss */
    int      n_meta_at;         /* intermediate real losses: after these steps (1 <= step < T), with these weights */
    int      meta_at[MAX_CHECKPOINTS];
    double   meta_weight[MAX_CHECKPOINTS];
    double   lr, mu;            /* start of the learned inner schedule */
    struct inner_cfg inner;
    double   outer_lr, outer_beta1, outer_beta2, outer_eps; /* Adam */
    double   outer_lr_end;      /* cosine to this fraction of outer_lr */
    double   outer_schedule;    /* times outer_lr: the step size of log lr and logit mu */
    double   clip;              /* times the running mean of the meta-gradient norm; 0: off */
    int      z_dim, g_hidden, g_channels1, g_channels2; /* generator: z+K -> hidden -> c1 x h/4 x w/4 -> up, c2 -> up, C */
    int      warm_start;        /* passes that fit the generator's images to real ones before the first meta-step */
    bool     learn_labels;      /* soft labels y_t are learned too (start: one-hot) */
    int      n_mix;             /* distribution of learners: spaces and their weights */
    name_str mix_space[MAX_MIX];
    hash_str mix_hash[MAX_MIX]; /* of those from a file: their content */
    double   mix_weight[MAX_MIX];
    uint64_t max_macs, max_params; /* drawn learners larger than this are drawn again */
    int      eval_every;        /* meta-steps between evaluations on fresh and on held-out architectures */
    int      checkpoint_every;
};

struct verify_cfg {
    name_str of;                /* search job (number or name) whose candidates are verified; "" with a list below */
    int      top, random;       /* so many best, so many drawn at random from the others */
    int      n_arch;            /* or these */
    char     arch[MAX_ARCH_LIST][ARCH_TEXT_MAX];
    double   epochs;
    int      batch;
    double   lr, momentum, weight_decay;
    bool     flip;
    int      shift;             /* augmentation: random shift by up to so many pixels, zero-padded (p = -1) */
    int      seeds;             /* trainings per architecture */
    struct proxy proxy;         /* channels and cells of the trained networks; 0: as the search, or the space, has it */
};

enum audit_action { AUDIT_WARN, AUDIT_STOP, AUDIT_NONE, AUDIT_ACTION_COUNT };
const char *audit_action_name(enum audit_action a); /* "warn" "stop" "none" */

struct audit_cfg {              /* search: real training of a random sample of its own candidates while it runs */
    double   share;             /* of the job's multiply-adds; 0: no audit */
    int      min, max;          /* candidates trained, at least and at most; fewer than min say nothing */
    enum audit_action action;   /* when the interval's upper end is below `floor` */
    double   floor;
    double   epochs;            /* and so on: as verify_cfg */
    int      batch;
    double   lr, momentum, weight_decay;
    bool     flip;
    int      shift;
    double   timeout_s;         /* of one training */
    bool     control;           /* the audited are also scored on control_curriculum (real batches), at the job's fidelity */
    name_str control_curriculum;
    hash_str control_curriculum_hash;
    int      every;             /* filled in at submission: one of so many candidates is audited */
    int      lag;               /* filled in at submission: with action stop, a proposal waits for the audits of those so far before it */
};

struct job_spec {
    enum job_kind kind;
    name_str name;
    uint64_t seed;
    name_str dataset;           /* a name or hash; the coordinator resolves it to dataset_hash at submission */
    name_str curriculum;
    hash_str dataset_hash, curriculum_hash;
    name_str space;             /* built in, or imported: the name as written; from submission on the identity (space_file.h) */
    hash_str space_hash;        /* of an imported space, from submission on: its content */
    enum device_class device;   /* search, teach: where its learners are trained */
    int      priority;          /* higher first, -100 … 100, default 0 */
    int      window;            /* W: proposal i may depend on results up to i - W */
    int      parallel;          /* most leases at once; 0: no limit */
    int      max_failed;        /* so many failed trials fail the job; 0: no limit */
    int      trials;            /* budget */
    double   seconds;           /* budget; 0: none. Ending by time is a recorded fact that replay reads */
    double   trial_timeout_s;
    int      n_objectives;
    struct objective objective[MAX_OBJECTIVES];
    struct searcher_cfg searcher;
    struct warmup_cfg   warmup;
    struct halving_cfg  halving;
    struct racing_cfg   racing;
    struct fidelity     fidelity;
    struct scores_cfg   scores;
    struct latency_cfg  latency;
    bool     use_book;          /* search: the score book may answer a trial, and gets its results */
    struct constraints  constraints;
    struct teach_cfg    teach;
    struct verify_cfg   verify;
    struct audit_cfg    audit;
};

/* What a trial of this rung is scored with; checkpoints after its last step are left out. Of a racing round: the initialisations that the
 * round before has not had. */
struct fidelity job_fidelity(const struct job_spec *s, int rung);
/* The size of the networks of its trials, on every rung; borrowed from s. */
const struct proxy *job_proxy(const struct job_spec *s);
struct proxy job_audit_proxy(const struct job_spec *s); /* of a search's real trainings: its size, on whole images */

/* Defaults of every field for this kind (docs/job-file.md lists the same values). */
void job_defaults(struct job_spec *s, enum job_kind kind);

struct train_task;
/* A real training as this job asks for it: a verify job's, or that of a search's audit, which leaves the test split alone, for its result may
 * end the search. Architecture and seed are left empty. */
void job_training(const struct job_spec *s, struct train_task *out);

/* Parse a YAML (hence JSON) job file. Every problem is reported with its line; an unknown key names the nearest
 * known one; values are checked for type and range, and against each other. -ERR_INPUT on any.
 * `file` is only for messages. */
int jobfile_parse(const char *text, size_t len, const char *file, struct job_spec *out, struct errbuf *e);
/* Apply one "key.sub=value" of `--set`. */
int jobfile_set(struct job_spec *s, const char *assignment, struct errbuf *e);
/* Several, checked against each other once all are there; on an error none is. */
int jobfile_set_all(struct job_spec *s, char *const *assignment, int n, struct errbuf *e);
/* The set of zero-cost scores that a search asks for; and that the vote of its warm-up does, which workers compute before any trial. */
uint32_t job_zero_cost(const struct job_spec *s);
uint32_t job_warmup_zero_cost(const struct job_spec *s);
/* Images of the forward pass that a search has its trials measured with; 0: it has not. */
int job_latency_batch(const struct job_spec *s);
/* The spec as JSON (jansson; the same keys as the file), and back: how specs are stored and sent. */
struct json_t *job_to_json(const struct job_spec *s);
int job_from_json(struct job_spec *s, const struct json_t *j, struct errbuf *e);

/* ---- what a worker is given: one task is one lease ---- */
enum task_kind { TASK_SCORE, TASK_TRAIN, TASK_TEACH, TASK_KIND_COUNT };

struct score_task {
    name_str space;
    hash_str space_hash;        /* of a space from a file: its blob */
    char     arch[ARCH_TEXT_MAX];
    hash_str dataset, curriculum;
    struct fidelity fidelity;
    uint64_t seed;              /* of the initial weights: derived from (job seed, arch hash), so a score is a pure function */
    uint32_t zero_cost;         /* set of enum zero_cost to compute as well */
    int      latency_batch;     /* measure a forward pass of so many images; 0: do not */
    bool     untrained;         /* of a warm-up: the zero-cost scores alone, and 0 as score */
};

struct train_task {             /* verify: real training of one architecture */
    name_str space;
    hash_str space_hash;
    char     arch[ARCH_TEXT_MAX];
    hash_str dataset;
    double   epochs;
    int      batch;
    double   lr, momentum, weight_decay;
    bool     flip;
    int      shift;
    uint64_t seed;
    bool     keep_weights;      /* upload the weights as a blob */
    bool     no_test;           /* the test split is not read: the score is the validation accuracy (audits: they may change a search) */
    struct proxy proxy;
};

struct teach_task {
    hash_str dataset;
    hash_str resume;            /* blob of a checkpoint, or "" */
    struct teach_cfg cfg;
    uint64_t seed;
};

struct task {
    uint64_t job, trial;        /* trial: index within the job, in proposal order */
    uint32_t attempt;           /* 1, 2, … */
    double   timeout_s;
    enum device_class device;   /* CPU or what the worker's hello named: learners are trained there */
    enum task_kind kind;
    union {
        struct score_task score;
        struct train_task train;
        struct teach_task teach;
    };
};

/* ---- what comes back ---- */
struct trial_result {
    enum trial_state state;     /* SCORED or FAILED */
    enum fail_reason reason;
    char     detail[256];       /* of a failure: which step, which layer */
    /* deterministic part: replay compares exactly this */
    double   score;             /* search: mean accuracy; verify: test accuracy; teach: final validation accuracy */
    double   score_se;          /* standard error over initialisations; NaN-free: 0 for one */
    int      n_inits;
    double   init_score[MAX_INITS];
    int      n_checkpoints;
    int      checkpoint[MAX_CHECKPOINTS];
    double   checkpoint_score[MAX_CHECKPOINTS]; /* mean over initialisations */
    double   loss_sum;          /* summed inner loss along the curriculum, mean over initialisations */
    double   lr_scale;          /* the multiple that scored best */
    double   valid_score;       /* verify: accuracy on the validation split */
    uint64_t params, macs;
    struct zero_cost_scores zero_cost;
    int      meta_steps;        /* teach */
    hash_str artifact;          /* teach: the curriculum; verify: the weights */
    hash_str checkpoint_blob;   /* teach: the teacher's last checkpoint */
    /* measured part */
    double   seconds;           /* wall time of the computation */
    uint64_t mem_bytes;         /* the plan's peak */
    double   latency_ms;        /* of one forward pass; 0: not measured */
};

/* Weights' seed of a trial: a function of (job seed, architecture), so that a score is a fact. */
uint64_t trial_seed(uint64_t job_seed, const char *arch_hash);
/* What an error of a task says of the candidate; FAIL_NONE: nothing, it is the machine's or ours. */
enum fail_reason fail_reason_of(int rc);

/* Progress of a long task, sent with heartbeats; shown live, never stored as a result. */
struct task_progress {
    uint64_t job, trial;
    uint32_t attempt;
    double   done, total;       /* inner steps x inits, epochs, or meta-steps */
    double   loss;              /* teach: meta-loss; train: training loss */
    double   accuracy;          /* teach: validation accuracy of fresh learners; train: validation accuracy */
    double   held_out;          /* teach: the same on held-out architectures */
    double   rate;              /* meta-steps, epochs or inits a second */
    hash_str checkpoint_blob;   /* teach: newest checkpoint uploaded so far, so that a lost worker costs little */
};

#endif
