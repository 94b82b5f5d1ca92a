/* verbs.h - the handlers of the verb table, and what they share. One file a group. */
#ifndef DIDACT_CLIENT_VERBS_H
#define DIDACT_CLIENT_VERBS_H

#include "client/cli.h"
#include "client/conn.h"
#include "client/print.h"

/* submit.c */
int verb_submit(struct cli *c);
int verb_teach(struct cli *c);
int verb_search(struct cli *c);
int verb_verify(struct cli *c);
/* The job file that a teach, search or verify command line means; *out is malloc'ed. */
int submit_compose(struct cli *c, const char *kind, char **out);
/* Hand in a job file text; id gets the new job's number as text. */
int submit_text(struct conn *conn, const char *yaml, const char *file, name_str id, struct errbuf *e);

/* jobs.c */
int verb_jobs(struct cli *c);
int verb_show(struct cli *c);
int verb_trials(struct cli *c);
int verb_pause(struct cli *c);
int verb_resume(struct cli *c);
int verb_cancel(struct cli *c);
int verb_retry(struct cli *c);
int verb_set(struct cli *c);
int verb_extend(struct cli *c);
int verb_finish(struct cli *c);
int verb_replay(struct cli *c);
/* One JOB document for people; and lists, as tables (width 0: as wide as they need). */
void jobs_table(const json_t *doc, FILE *f, int width);
void workers_table(const json_t *doc, FILE *f, int width);
void show_job(const json_t *job, FILE *f);

/* ask.c: what an outside searcher does */
int verb_propose(struct cli *c);
int verb_told(struct cli *c);

/* pages.c: `on` is called for every trial of a job, in the order `sort` ("index", or "score": the scored ones, best first), until it
 * returns an error, which becomes the result. */
int each_trial(struct conn *conn, const char *job, const char *sort, int (*on)(void *arg, const json_t *trial), void *arg,
               struct errbuf *e);

/* best.c, compare.c, clone.c, why.c */
int verb_why(struct cli *c);
/* "JOB" or "JOB/TRIAL" taken apart; *trial is -1 without one. */
int job_and_trial(const char *arg, name_str job, int64_t *trial, struct errbuf *e);
int verb_best(struct cli *c);
int verb_compare(struct cli *c);
int verb_clone(struct cli *c);
/* A spec as the job file that means it; *out is malloc'ed. */
int job_file_text(const json_t *spec, char **out, struct errbuf *e);

/* results.c */
int verb_results(struct cli *c);
int verb_book_export(struct cli *c);
int verb_book_import(struct cli *c);
int verb_book_remove(struct cli *c);
/* jobs/ID/results as show_results wants it, and for people: by the kind of the job. */
int  ask_results(struct conn *conn, const char *job, json_t **out, struct errbuf *e);
void show_results(const json_t *doc, FILE *f);
/* What a rank correlation over n networks allows to say; whole sentences. */
void verify_sentence(int n, double rho, double low, double high, char *out, size_t cap);

/* audit.c */
int verb_audit(struct cli *c);
/* The standing audit of a JOB document in one line, "audit: …"; false: it has none, or nothing of it yet. */
bool audit_line(const json_t *job, char *out, size_t cap);

/* watch.c */
struct watch_cfg {
    bool   json;          /* one JOB document a line */
    bool   plain;         /* lines even on a terminal */
    double every_s;       /* between lines; 0: 10 s */
    double limit_s;       /* give up watching after this; 0: never */
    FILE  *f;
    const char *indent;   /* before every line; NULL: none */
    const volatile int *stop; /* nonzero: stop watching (-ERR_CANCELLED); NULL: no such wish */
};
int verb_watch(struct cli *c);
int verb_wait(struct cli *c);
/* Until the job ends; *out (caller owns) is its last document. A coordinator that is away for less than a minute is waited for.
 * -ERR_TIMEOUT after limit_s. */
int watch_job(struct conn *conn, const char *job, const struct watch_cfg *w, json_t **out, struct errbuf *e);
bool job_ended(const json_t *job);
int  job_exit_status(const json_t *job);  /* 0 succeeded, 1 failed or cancelled */

/* top.c */
int verb_top(struct cli *c);

/* fleet.c */
int verb_workers(struct cli *c);
int verb_status(struct cli *c);
int verb_keygen(struct cli *c);

/* things.c: datasets, curricula */
int verb_dataset_import(struct cli *c);
int verb_dataset_list(struct cli *c);
int verb_dataset_show(struct cli *c);
int verb_curriculum_import(struct cli *c);
int verb_curriculum_list(struct cli *c);
int verb_curriculum_export(struct cli *c);
int verb_dataset_export(struct cli *c);
/* A file as a blob of this kind, named; progress on stderr where that is a terminal. */
int thing_upload(struct conn *conn, const char *path, const char *hash, const char *kind, const char *name, struct errbuf *e);
/* list: datasets, curricula or spaces. By name, or by the first 6 digits or more of the hash. */
int thing_find(struct conn *conn, const char *list, const char *name_or_hash, name_str name, hash_str hash, struct errbuf *e);
int thing_export(struct cli *c, const char *list, const char *ending); /* the named blob as a file */
/* What a person names: a file (with a '/' or .safetensors), or imported (by name or hash; only then a coordinator is asked). The caller ends
 * *out with curriculum_fini. */
struct curriculum;
int curriculum_named(struct cli *c, const char *name_or_file, name_str name, struct curriculum *out);
/* curriculum_show.c */
int verb_curriculum_show(struct cli *c);

/* spaces.c */
int verb_space_import(struct cli *c);
int verb_space_list(struct cli *c);
int verb_space_show(struct cli *c);
int verb_space_export(struct cli *c);
/* space_draw.c */
int verb_space_sample(struct cli *c);
int verb_space_mutate(struct cli *c);
int verb_space_neighbours(struct cli *c);
/* Convert `source`, upload it under `name`. hash is set. Progress on stderr where that is a terminal. */
int dataset_push(struct conn *conn, const char *source, const char *name, hash_str hash, struct errbuf *e);
int curriculum_push(struct conn *conn, const char *file, const char *name, hash_str hash, struct errbuf *e);
struct dataset_facts {
    name_str name;
    hash_str hash;
    int      c, h, w, n_classes;
    uint64_t train, test, bytes;
};
/* Read the head of an imported dataset, by name or hash. */
int dataset_facts(struct conn *conn, const char *name_or_hash, struct dataset_facts *out, struct errbuf *e);

/* export.c */
int verb_export(struct cli *c);
int verb_draw(struct cli *c);
enum export_format { EXPORT_ONNX, EXPORT_SAFETENSORS, EXPORT_TORCH, EXPORT_DOT, EXPORT_SVG, EXPORT_JSON, EXPORT_CSV, EXPORT_COUNT };
/* The trial's network; a fresh net. -ERR_NOTFOUND where its space or dataset is not here, -ERR_INPUT where it is none. */
int trial_net(struct conn *conn, const char *job, const json_t *trial, struct net *out, struct errbuf *e);
/* A trial and its network, drawn or as JSON; trial < 0: the best one. */
int show_trial(struct conn *conn, const char *job, int64_t trial, bool as_json, FILE *f, struct errbuf *e);
/* trial < 0: the best one. */
int export_trial(struct conn *conn, const char *job, int64_t trial, enum export_format format, const char *path, struct errbuf *e);

/* local.c */
int verb_local_start(struct cli *c);
int verb_local_stop(struct cli *c);
int verb_local_status(struct cli *c);

/* simulate.c */
int verb_simulate(struct cli *c);

/* demo.c */
int verb_demo(struct cli *c);

#endif
