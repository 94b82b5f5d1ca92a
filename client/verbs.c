/* verbs.c - the verb table: everything that didact can be told, with an example each. */
#include "client/verbs.h"

#define F(...) (const struct flag[]) { __VA_ARGS__, { .name = NULL } }

const struct flag cli_globals[] = {
    { "json", 0, NULL, "print the document as JSON", false },
    { "help", 'h', NULL, "print this", false },
    { "connect", 0, "ENDPOINT", "the coordinator: tcp://HOST:PORT or ipc://PATH [DIDACT_CONNECT]", false },
    { "dir", 0, "DIR", "the local folder (default: DIDACT_HOME or ~/.local/share/didact/local)", false },
    { "key", 0, "FILE", "our key pair NAME.key, for a coordinator with keys [DIDACT_KEY]", false },
    { "server-key", 0, "FILE", "the coordinator's server.pub [DIDACT_SERVER_KEY]", false },
    { "insecure", 0, NULL, "speak to another machine in the clear", false },
    { "timeout", 0, "S", "seconds to wait for an answer (default 10)", false },
    { .name = NULL },
};

#define HAND_IN                                                                                  \
    { "follow", 'f', NULL, "watch it until it ends, then show the results", false },             \
    { "dry-run", 0, NULL, "check it and say what it would do; nothing is created", false },      \
    { "set", 0, "KEY=VALUE", "change a key of the job file, as fidelity.inits=4", true }
#define NAMED                                                                                    \
    { "name", 0, "NAME", "name of the job", false },                                             \
    { "seed", 0, "N", "seed of everything random in it", false },                                \
    { "dataset", 0, "NAME", "imported dataset, by name or hash", false },                        \
    { "priority", 0, "N", "-100 to 100; higher first", false },                                  \
    { "print", 0, NULL, "print the job file that these flags mean, and submit nothing", false }
#define PAGED                                                                                    \
    { "limit", 0, "N", "at most so many rows (default 100, at most 1000)", false },              \
    { "offset", 0, "N", "skip so many", false }
#define SURE { "yes", 'y', NULL, "do not ask", false }
#define JOBS "Submit"
#define LOOK "Look"
#define STEER "Change"
#define TAKE "Results"
#define THINGS "Datasets, curricula, spaces"
#define FLEET "Coordinator and workers"
#define LOCAL "This machine"
#define MORE "More"

const struct verb cli_verbs[] = {
    { "submit", JOBS, "FILE", 1, 1, "Hand in a job file (YAML or JSON; - reads standard input)",
      "didact submit job.yaml -f                hand in and follow\n"
      "didact submit job.yaml --dry-run         check, and show what it would do\n"
      "didact submit job.yaml --set budget.trials=500 --set seed=2", F(HAND_IN), verb_submit },
    { "teach", JOBS, "", 0, 0, "Train a teacher; its curriculum is the result",
      "didact teach --dataset fashion-mnist --meta-steps 2000 -f\n"
      "didact teach --dataset fashion-mnist --teacher real --seconds 600    the control: real batches",
      F(NAMED, { "teacher", 0, "KIND", "gtn (default), distilled or real", false },
        { "steps", 0, "T", "inner steps of the curriculum", false }, { "teach-batch", 0, "B", "images of a step", false },
        { "meta-steps", 0, "N", "outer steps", false }, { "seconds", 0, "S", "end after so long, if that is earlier", false },
        { "learners", 0, "K", "learners of a meta-step", false }, HAND_IN), verb_teach },
    { "search", JOBS, "", 0, 0, "Search a space, scoring candidates on a curriculum",
      "didact search --dataset fashion-mnist --curriculum fm --space chain --trials 200 -f",
      F(NAMED, { "curriculum", 0, "NAME", "imported or taught curriculum, by name or hash", false },
        { "space", 0, "NAME", "built in or imported (didact space list), or the path of a space file", false },
        { "searcher", 0, "NAME", "random, evolution, local, nsga2 or external", false }, { "population", 0, "N", "evolution and nsga2: how many survive", false },
        { "sample", 0, "N", "evolution: tournament size", false }, { "trials", 0, "N", "candidates to score", false },
        { "audit", 0, "SHARE", "so much of the work, as 0.05, trains a sample of them for real", false },
        { "fidelity-steps", 0, "N", "curriculum steps of a candidate (default: all)", false },
        { "inits", 0, "N", "initialisations of a candidate", false },
        { "valid-images", 0, "N", "held-out real images that score it", false },
        { "proxy-channels", 0, "N", "first stage's channels (nasbench201, nasnet)", false },
        { "proxy-cells", 0, "N", "cells a stage (nasbench201, nasnet)", false },
        { "max-params", 0, "N", "no candidates with more parameters", false },
        { "max-macs", 0, "N", "no candidates with more multiply-adds", false },
        { "window", 0, "W", "a proposal may depend on results up to W before it", false },
        { "parallel", 0, "N", "most trials at once", false }, HAND_IN), verb_search },
    { "verify", JOBS, "", 0, 0, "Train chosen architectures on real data and test them",
      "didact verify --of 3 --top 3 --random 6 -f             the best and a sample of search 3\n"
      "didact verify --dataset fashion-mnist --space chain --arch 'bn relu | c16k3 | s32k3 | gap'",
      F(NAMED, { "of", 0, "JOB", "the search whose candidates are verified", false },
        { "top", 0, "N", "so many best ones", false }, { "random", 0, "N", "and so many at random from the others", false },
        { "arch", 0, "TEXT", "or this architecture", true }, { "space", 0, "NAME", "space of --arch", false },
        { "epochs", 0, "N", "passes over the training images", false }, { "batch", 0, "N", "images of a step", false },
        { "channels", 0, "N", "first stage's channels (nasbench201, nasnet)", false }, { "cells", 0, "N", "cells a stage", false },
        { "lr", 0, "X", "step size at the start", false }, { "seeds", 0, "N", "trainings of each architecture", false },
        { "parallel", 0, "N", "most trials at once", false }, HAND_IN), verb_verify },

    { "jobs", LOOK, "", 0, 0, "List jobs, newest first",
      "didact jobs\ndidact jobs --state running --limit 20",
      F({ "state", 0, "STATE", "queued running paused stopping succeeded failed cancelled", false }, PAGED), verb_jobs },
    { "show", LOOK, "JOB[/TRIAL]", 1, 1, "Show a job: state, counts, and its file with all defaults; or a trial, drawn",
      "didact show 3\ndidact show 3/17\ndidact show 3 --json",
      NULL, verb_show },
    { "trials", LOOK, "JOB", 1, 1, "List the trials of a job", "didact trials 3 --sort score --limit 20\ndidact trials 3 --state failed",
      F({ "state", 0, "STATE", "waiting running scored failed cancelled", false },
        { "sort", 0, "KEY", "index (default) or score", false }, PAGED), verb_trials },
    { "watch", LOOK, "JOB", 1, 1, "Follow a job until it ends (stopping to watch does not stop it)",
      "didact watch 3\ndidact watch 3 --json --every 1",
      F({ "every", 0, "S", "seconds between lines where there is no terminal (default 10)", false },
        { "plain", 0, NULL, "lines on a terminal too", false }), verb_watch },
    { "top", LOOK, "", 0, 0, "Live view of the jobs that are not over and of the workers (once, where there is no terminal)",
      "didact top\ndidact top --once", F({ "every", 0, "S", "seconds between looks (default 2)", false },
        { "once", 0, NULL, "look once, on a terminal too", false }), verb_top },
    { "wait", LOOK, "JOB…", 1, CLI_MAX_ARGS, "Wait for jobs; the exit status is 0 if all succeeded, 1 if not",
      "didact wait 3 && didact best 3\ndidact wait 3 4 5 --for 60",
      F({ "for", 0, "S", "give up after so many seconds (status 75)", false }), verb_wait },
    { "why", LOOK, "JOB[/TRIAL]", 1, 1, "Say why a job or trial does not run, failed or ended so; and whom a trial descends from",
      "didact why 3\ndidact why 3/17\ndidact why fm-search/17 --json", NULL, verb_why },
    { "told", LOOK, "JOB", 1, 1, "The results of a search in the order of its proposals, as far as they are in without a gap",
      "didact told 3\ndidact told 3 --after 40 --wait 30 --json       wait for the result of trial 40",
      F({ "after", 0, "N", "from trial N on", false }, { "wait", 0, "S", "where there is none yet, wait so long (at most 60)", false },
        { "limit", 0, "N", "at most so many (default 100, at most 1000)", false }), verb_told },

    { "results", TAKE, "JOB", 1, 1, "What came out: the best candidates; proxy beside real accuracy; a teacher's history",
      "didact results 3\ndidact results 3 --top 50 --json\ndidact results 3 --by fused --columns loss_sum,synflow",
      F({ "top", 0, "N", "so many candidates (default 10)", false },
        { "by", 0, "COLUMN", "a search's best by fused, loss_sum, params, macs, latency or a zero-cost score instead of the score", false },
        { "columns", 0, "LIST", "these columns too, as loss_sum,synflow", false }), verb_results },
    { "best", TAKE, "JOB", 1, 1, "Print the best architecture, or the trials that no other beats in everything",
      "didact best 3\ndidact best 3 --pareto score,params,macs",
      F({ "pareto", 0, "LIST", "of score, valid_score, loss_sum, params, macs, latency, seconds, mem_bytes", false }), verb_best },
    { "compare", TAKE, "A B", 2, 2, "Put two jobs beside each other: settings that differ, bests, rank correlation of what both scored",
      "didact compare 3 4\ndidact compare fm-search fm-longer --json", NULL, verb_compare },
    { "draw", TAKE, "JOB[/TRIAL]", 1, 1, "Draw the network of a trial (default: the best) in the terminal", "didact draw 3\ndidact draw 3/17",
      NULL, verb_draw },
    { "export", TAKE, "JOB[/TRIAL]", 1, 1, "Write a trial as a file: network, weights, drawing, document; or all trials as a table",
      "didact export 4 -o best.onnx                       the best trained network\n"
      "didact export 4 -o best.py                         the same for PyTorch, weights in best.safetensors\n"
      "didact export 3/17 -o cell.svg                     a drawing; needs no weights\n"
      "didact export 4 --trial 2 --format safetensors -o net.safetensors\n"
      "didact export 3 --format csv -o trials.csv         every trial",
      F({ "output", 'o', "FILE", "where to; - is standard output, for text formats", false },
        { "format", 0, "FORMAT", "onnx, safetensors, torch, dot, svg, json or csv (default: the ending of FILE)", false },
        { "trial", 0, "N", "this trial (default: the best)", false }), verb_export },
    { "simulate", TAKE, "FILE|JOB", 1, 1, "Run searchers on recorded scores: regret against evaluations, over many seeds",
      "didact simulate scores.csv --within 0.002                       a table with the columns arch and score\n"
      "didact simulate nasbench201.csv.gz --score c10_valid_12 --truth c10_test_200 --within 0.2 --searcher random --searcher evolution\n"
      "didact simulate 3 --seeds 1000 --set searcher.population=16     the scores of job 3",
      F({ "searcher", 0, "NAME", "which (default: evolution, or the job's)", true },
        { "trials", 0, "N", "evaluations of a run (default 300, or the job's)", false },
        { "seeds", 0, "N", "runs (default 200)", false }, { "seed", 0, "N", "the first of their seeds (default 1, or the job's)", false },
        { "window", 0, "W", "results are seen W proposals later (default 1, or the job's)", false },
        { "within", 0, "X", "report the evaluations until the regret is at most X (default 0)", false },
        { "set", 0, "KEY=VALUE", "any key of a search job, as searcher.population=64", true },
        { "space", 0, "NAME", "the table's space (default nasbench201), or the path of a space file", false },
        { "arch", 0, "COLUMN", "the file's architectures (default arch)", false },
        { "score", 0, "COLUMN", "what the searcher sees (default score)", false },
        { "truth", 0, "COLUMN", "what its choice is judged by (default: the score)", false },
        { "params", 0, "COLUMN", "parameters (default params, if there)", false },
        { "macs", 0, "COLUMN", "multiply-adds (default macs, if there)", false },
        { "cheap", 0, "COLUMN", "what a warm-up ranks by (default: the keys warmup.vote, warmup.score)", false },
        { "init-scores", 0, "COLUMN", "scores of single initialisations, for racing (default init_scores, if there)", false },
        { "input", 0, "C,H,W,K", "compute params and macs for such images and K classes instead", false },
        { "threads", 0, "N", "seeds side by side (default: all cores)", false }), verb_simulate },
    { "audit", TAKE, "JOB|BOOK…", 1, 8, "How far scores rank as real training does, beside parameters and every other number",
      "didact audit 3                    after didact verify --of 3\ndidact audit 3 -o audit.svg       and as a drawing\n"
      "didact audit 3 --json\n"
      "didact audit scores.csv real.csv --truth nasbench201.csv.gz --truth-column c10_test_200 --fuse score,params,jacob_cov",
      F({ "truth", 0, "FILE", "no job, but score books against this table (CSV, also .gz) with a column arch", false },
        { "truth-column", 0, "COLUMN", "what its networks are worth (default accuracy)", false },
        { "truth-arch", 0, "COLUMN", "its architectures (default arch)", false },
        { "space", 0, "NAME", "the books' space, where it is a file of yours (default: as the books name it, asked of the coordinator)", false },
        { "fuse", 0, "LIST", "one more column: the sum of log ranks in these of the books'", false },
        { "seed", 0, "N", "of the resamples (default 1)", false }, { "output", 'o', "FILE", "draw it: FILE.svg or FILE.png", false },
        { "by", 0, "COLUMN", "the column that the drawing's scatter shows (default score)", false }), verb_audit },
    { "replay", TAKE, "JOB", 1, 1, "Run the searcher again on the recorded results and compare every proposal",
      "didact replay 3", NULL, verb_replay },

    { "propose", STEER, "JOB ARCH…", 2, CLI_MAX_ARGS, "Propose architectures to a search with the searcher external (- reads them, one a line)",
      "didact propose 3 'bn relu | c16k3 avg2 | flat' --wait           and wait for its score\n"
      "didact space sample chain -n 100 | didact propose 3 -            as many as its window has room for, then as it gets free\n"
      "didact propose 3 --request my-17 --tag seventeen ARCH           may be repeated: it proposes once",
      F({ "wait", 'w', NULL, "wait for their results and print them", false },
        { "tag", 0, "TEXT", "a word of yours that comes back with the result (of lines: after a tab)", false },
        { "request", 0, "KEY", "a key of yours: the same request again is answered as before", false }), verb_propose },
    { "finish", STEER, "JOB", 1, 1, "Say that no more proposals come: the search ends with those it has", "didact finish 3", NULL, verb_finish },
    { "pause", STEER, "JOB", 1, 1, "Give out no more trials of a job", "didact pause 3", NULL, verb_pause },
    { "resume", STEER, "JOB", 1, 1, "Go on with a paused job", "didact resume 3", NULL, verb_resume },
    { "cancel", STEER, "JOB", 1, 1, "End a job for good; its results are kept", "didact cancel 3 --yes", F(SURE), verb_cancel },
    { "retry", STEER, "JOB", 1, 1, "Try trials again that failed with timeout, crash or oom; a failed job goes on",
      "didact retry 3", NULL, verb_retry },
    { "extend", STEER, "JOB", 1, 1, "Give a job a larger budget, while it runs or after its end; it goes on as if it had had it always",
      "didact extend 3 --trials 400\ndidact extend 3 --time 2h", F({ "trials", 0, "N", "so many trials in all", false },
        { "time", 0, "T", "so long in all, as 90s, 5m or 2h; 0: no limit", false }), verb_extend },
    { "set", STEER, "JOB KEY=VALUE…", 2, CLI_MAX_ARGS, "Change how a job is served: priority, parallel, max_failed, trial_timeout, budget.*",
      "didact set 3 priority=10 parallel=4\ndidact set 3 max_failed=0", NULL, verb_set },
    { "clone", STEER, "JOB", 1, 1, "Submit the same job once more, or write its job file",
      "didact clone 3 --set seed=2\ndidact clone 3 -o job.yaml                the job file, with all defaults filled in",
      F({ "set", 0, "KEY=VALUE", "change a key of it, as fidelity.inits=4", true },
        { "output", 'o', "FILE", "write the job file and submit nothing; - is standard output", false },
        { "print", 0, NULL, "the same, to standard output", false }), verb_clone },

    { "dataset import", THINGS, "SOURCE [NAME]", 1, 2, "Import images: IDX files, CIFAR binary, folders of PNG and JPEG, or a file that dataset export wrote",
      "didact dataset import /usr/share/datasets/fashion-mnist fashion-mnist\n"
      "didact dataset import ./pictures my-pictures       pictures/train/CLASS/*.png\n"
      "didact dataset import fashion-mnist.safetensors    from another site's dataset export",
      F({ "name", 0, "NAME", "its name (default: that of the folder or file)", false }), verb_dataset_import },
    { "dataset list", THINGS, "", 0, 0, "List datasets", "didact dataset list", NULL, verb_dataset_list },
    { "dataset show", THINGS, "NAME", 1, 1, "Show a dataset: images, classes, splits", "didact dataset show fashion-mnist", NULL,
      verb_dataset_show },
    { "dataset export", THINGS, "NAME", 1, 1, "Write a dataset as a safetensors file",
      "didact dataset export fashion-mnist -o fashion-mnist.safetensors", F({ "output", 'o', "FILE", "where to (default: NAME.safetensors)", false }),
      verb_dataset_export },
    { "curriculum import", THINGS, "FILE [NAME]", 1, 2, "Import a curriculum file",
      "didact curriculum import share/curricula/fashion-mnist-gtn-t32.safetensors fm",
      F({ "name", 0, "NAME", "its name (default: that of the file)", false }), verb_curriculum_import },
    { "curriculum list", THINGS, "", 0, 0, "List curricula", "didact curriculum list", NULL, verb_curriculum_list },
    { "curriculum show", THINGS, "NAME|FILE", 1, 1, "Show a curriculum: sizes, learned step sizes, class balance, where it comes from; or draw its images",
      "didact curriculum show fm\n"
      "didact curriculum show fm -o fm.png              images, step size, momentum and class balance as a picture\n"
      "didact curriculum show fm.safetensors -o fm.svg  of a file; no coordinator is asked",
      F({ "output", 'o', "FILE", "draw it: FILE.svg or FILE.png", false }), verb_curriculum_show },
    { "curriculum export", THINGS, "NAME", 1, 1, "Write a curriculum as a safetensors file",
      "didact curriculum export fm -o fm.safetensors", F({ "output", 'o', "FILE", "where to (default: NAME.safetensors)", false }),
      verb_curriculum_export },
    { "book export", THINGS, "FILE", 1, 1, "Write the score book as a table (CSV): what is known of every architecture that was ever scored",
      "didact book export book.csv", NULL, verb_book_export },
    { "book import", THINGS, "FILE", 1, 1, "Add the rows of another score book; where both have a key, both must have the same numbers",
      "didact book import from-the-other-site.csv\ndidact book import scores.csv        what didact-worker score wrote", NULL, verb_book_import },
    { "book remove", THINGS, "FILE", 1, 1, "Take out of the score book what it has under the keys of these rows, whatever its numbers", "didact book remove wrong.csv", NULL, verb_book_remove },
    { "space import", THINGS, "FILE [NAME]", 1, 2, "Import a search space of your own, a YAML file",
      "didact space import share/spaces/small-images.yaml\n"
      "didact search --space small-images --dataset fashion-mnist --curriculum fm32 -f",
      F({ "name", 0, "NAME", "its name (default: the one in the file)", false }), verb_space_import },
    { "space list", THINGS, "", 0, 0, "List search spaces, built in and imported", "didact space list", NULL, verb_space_list },
    { "space show", THINGS, "NAME|FILE", 1, 1, "Show a space, built in, imported or from a file: a few of its architectures, and one drawn",
      "didact space show nasnet\n"
      "didact space show nasbench201 --input 3,32,32 --channels 16 --cells 5\n"
      "didact space show chain --arch 'bn relu | c16k5 max2 | s32k5x2 skip | gap'\n"
      "didact space show share/spaces/small-images.yaml       check a space file of your own",
      F({ "input", 0, "C,H,W", "for images of this size (default 1,28,28)", false },
        { "classes", 0, "K", "and so many classes (default 10)", false },
        { "arch", 0, "TEXT", "draw this one (default: the first sample)", false },
        { "channels", 0, "N", "first stage's channels (nasbench201, nasnet)", false }, { "cells", 0, "N", "cells a stage", false },
        { "downsample", 0, "N", "images averaged over so many pixels a side", false }, { "samples", 0, "N", "architectures drawn (default 3)", false },
        { "seed", 0, "N", "other ones", false }), verb_space_show },
    { "space export", THINGS, "NAME", 1, 1, "Write an imported space as its YAML file", "didact space export small-images -o small-images.yaml",
      F({ "output", 'o', "FILE", "where to (default: NAME.yaml)", false }), verb_space_export },

    { "space sample", THINGS, "NAME|FILE", 1, 1, "Draw architectures of a space, one a line",
      "didact space sample chain -n 1000 --seed 7\ndidact space sample share/spaces/small-images.yaml -n 5 --json",
      F({ "number", 'n', "N", "so many (default 10)", false }, { "seed", 0, "N", "of the draws (default 1)", false }), verb_space_sample },
    { "space mutate", THINGS, "NAME|FILE ARCH", 2, 2, "Draw mutations of an architecture: one choice changed",
      "didact space mutate chain 'bn relu | c16k3 avg2 | flat' -n 5 --seed 3",
      F({ "number", 'n', "N", "so many (default 10)", false }, { "seed", 0, "N", "of the draws (default 1)", false }), verb_space_mutate },
    { "space neighbours", THINGS, "NAME|FILE ARCH", 2, 2, "List all that a mutation of an architecture can make, one a line",
      "didact space neighbours nasbench201 '|nor_conv_3x3~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_1x1~2|'", NULL, verb_space_neighbours },

    { "workers", FLEET, "", 0, 0, "List workers and what they hold", "didact workers", NULL, verb_workers },
    { "status", FLEET, "", 0, 0, "The coordinator at a glance", "didact status\ndidact status --connect tcp://10.0.0.5:7707 --json",
      NULL, verb_status },
    { "keygen", FLEET, "[NAME]", 0, 1, "Make CURVE keys, and say who may connect as what",
      "didact keygen --server /etc/didact/keys                        the coordinator's folder of keys\n"
      "didact keygen alice --role submitter                           alice.key and alice.pub\n"
      "didact keygen alice.pub --authorize /etc/didact/keys           let alice in",
      F({ "role", 0, "ROLE", "viewer, submitter (default), worker or admin", false },
        { "authorize", 0, "DIR", "let the pair in: copy its public part to DIR/authorized", false },
        { "server", 0, "DIR", "make the coordinator's own pair in DIR", false }), verb_keygen },

    { "local start", LOCAL, "", 0, 0, "Start a coordinator and workers on this machine (what runs already is left alone)",
      "didact local start\ndidact local start --dir ./here --workers 2 --slots 1",
      F({ "workers", 0, "N", "worker processes (default 2)", false },
        { "slots", 0, "N", "trials side by side in each (default 1)", false },
        { "threads", 0, "N", "threads of a worker's lone task (default: all cores)", false }), verb_local_start },
    { "local stop", LOCAL, "", 0, 0, "Stop them; everything is kept", "didact local stop\ndidact local stop --dir ./here", NULL,
      verb_local_stop },
    { "local status", LOCAL, "", 0, 0, "What runs, and the coordinator's status", "didact local status", NULL, verb_local_status },
    { "demo", LOCAL, "", 0, 0, "The whole road on real images: teach, search, verify, export; about ten minutes",
      "didact demo\ndidact demo --dir ./my-demo --minutes-teach 0.5 --trials 50 --epochs 1",
      F({ "data", 0, "DIR", "Fashion-MNIST (default /usr/share/datasets/fashion-mnist)", false },
        { "minutes-teach", 0, "M", "length of the teach job (default 2)", false },
        { "trials", 0, "N", "candidates of the search (default 200)", false },
        { "epochs", 0, "N", "passes over the real images in verify (default 2)", false },
        { "top", 0, "N", "best candidates to verify (default 3)", false },
        { "random", 0, "N", "random candidates to verify (default 6)", false },
        { "max-macs", 0, "N", "largest candidate in multiply-adds (default 1500000)", false },
        { "workers", 0, "N", "worker processes (default 2)", false },
        { "curriculum", 0, "FILE", "curriculum of the search (default: the one that is shipped)", false }), verb_demo },

    { "completion", MORE, "bash|zsh|fish", 1, 1, "Print shell completion (make install puts it in place)", "source <(didact completion bash)\n"
      "didact completion zsh > ~/.zfunc/_didact\n"
      "didact completion fish > ~/.config/fish/completions/didact.fish", NULL, cli_run_completion },
    { "help", MORE, "[VERB]", 0, 2, "Explain a verb, or list them all", "didact help submit\ndidact help dataset import\n"
      "didact help --man | man -l -", F({ "man", 0, NULL, "print a manual page", false }), cli_run_help },
    { "version", MORE, "", 0, 0, "Print the version", "didact version", NULL, cli_run_version },
    { .name = NULL },
};
