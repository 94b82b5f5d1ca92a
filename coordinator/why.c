/* why.c - jobs/ID/why: why a job does not run, runs no faster, or ended as it did; why a trial waits or failed, and whom it descends from.
 * A reason is a row of a table: a name for programs, and a function that says whether it holds and puts it in words. All that hold
 * are told, what people can change first. */
#include "coordinator/docs_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINEAGE 32
#define MAX_EVENTS  100

typedef unsigned long long ull;

struct asking {
    struct coord         *c;
    const struct job_row *row;  /* of the job; live counts where it lives */
    struct job           *j;    /* NULL: it has ended */
};

/* ---- the workers ---- */

/* Those that have the device which `j` asks for; NULL: all. */
static void count_workers(struct sched *s, const struct job *j, uint32_t *online, uint32_t *slots, uint64_t *mem)
{
    *online = *slots = 0;
    *mem = 0;
    list_each(l, &s->workers) {
        struct worker *w = list_entry(l, struct worker, all);
        if (!w->online || (j && !fit_spec(&j->spec, w)))
            continue;
        (*online)++;
        *slots += w->slots;
        *mem = w->mem_bytes > *mem ? w->mem_bytes : *mem;
    }
}

static bool store_down(struct asking *a, char *out, size_t cap)
{
    snprintf(out, cap, "the store cannot be written (disk full?): nothing is given out or acknowledged until it can; tried every second");
    return a->c->sched->store_down;
}

static bool no_workers(struct asking *a, char *out, size_t cap)
{
    uint32_t online, slots;
    uint64_t mem;
    count_workers(a->c->sched, NULL, &online, &slots, &mem);
    if (a->c->sched->n_workers > 0)
        snprintf(out, cap, "no worker is online (%d were seen before): start one with didact-worker or didact local start", a->c->sched->n_workers);
    else
        snprintf(out, cap, "no worker has ever connected: start one with didact-worker or didact local start");
    return online == 0;
}

/* Some worker that is online has the device that j asks for. */
static bool served(struct asking *a, const struct job *j)
{
    uint32_t online, slots;
    uint64_t mem;
    count_workers(a->c->sched, j, &online, &slots, &mem);
    return online > 0;
}

static bool no_device(struct asking *a, char *out, size_t cap)
{
    uint32_t online, slots;
    uint64_t mem;
    count_workers(a->c->sched, NULL, &online, &slots, &mem);
    snprintf(out, cap, "it asks for device %s, and of %u workers online none has one: start didact-worker where a GPU is, or didact clone %llu --set device=any",
             device_class_name(a->j->spec.device), online, (ull)a->row->id);
    list_each(l, &a->c->sched->workers) {
        struct worker *w = list_entry(l, struct worker, all);
        const size_t at = strlen(out);
        if (!w->online && fit_spec(&a->j->spec, w)) {
            snprintf(out + at, cap - at, "; %s had one and is gone: its log says why, and a new process may find it well", w->name);
            break;
        }
    }
    return online > 0 && !served(a, a->j);
}

static const char *s_of(uint64_t n)
{
    return n == 1 ? "" : "s";
}

/* Nobody who could do it asks for work: who has it all? */
static bool all_busy(struct asking *a, char *out, size_t cap)
{
    uint32_t online, slots;
    uint64_t mem;
    struct sched *s = a->c->sched;
    count_workers(s, a->j, &online, &slots, &mem);
    uint32_t mine = 0; /* of these slots; audits and warm-ups of a device's job run on other workers' CPUs, too */
    list_each(l, &s->running) {
        struct trial *t = list_entry(l, struct trial, running);
        mine += t->job == a->j && t->worker && fit_spec(&a->j->spec, t->worker);
    }
    if (online == 0 || mine >= slots)
        return false;
    list_each(l, &s->hungry)
        if (fit_spec(&a->j->spec, list_entry(l, struct worker, hungry)))
            return false;
    const bool any = device_class_any_cpu(a->j->spec.device);
    size_t at = (size_t)snprintf(out, cap, "no worker%s%s has a free slot (%u online, %u slot%s)", any ? "" : " with device ",
                                 any ? "" : device_class_name(a->j->spec.device), online, slots, s_of(slots));
    list_each(l, &s->jobs) {
        struct job *o = list_entry(l, struct job, all);
        if (o != a->j && o->n_running > 0 && at < cap)
            at += (size_t)snprintf(out + at, cap - at, "; job %llu %s runs %llu trial%s", (ull)o->row.id, o->row.name, (ull)o->n_running,
                                   s_of(o->n_running));
    }
    return true;
}

static bool memory(struct asking *a, char *out, size_t cap)
{
    uint32_t online, slots;
    uint64_t mem, n = a->row->n.reason[FAIL_OOM];
    count_workers(a->c->sched, NULL, &online, &slots, &mem);
    size_t at = (size_t)snprintf(out, cap, n == 1 ? "%llu trial needs more memory than its worker gives a slot"
                                 : "%llu trials need more memory than their worker gives a slot", (ull)n);
    if (online && at < cap)
        snprintf(out + at, cap - at, "; the most that a worker online gives is %.0f MiB (didact-worker --mem-mb; on a GPU its share of what is free there: fewer --slots)", (double)mem / (1 << 20));
    return n > 0;
}

/* ---- the job ---- */

static bool is_paused(struct asking *a, char *out, size_t cap)
{
    snprintf(out, cap, "it is paused: didact resume %llu", (ull)a->row->id);
    return a->j->row.state == JOB_PAUSED;
}

static bool is_stopping(struct asking *a, char *out, size_t cap)
{
    snprintf(out, cap, a->j->n_running == 1 ? "its %g seconds are over; it ends with the %llu trial that runs"
             : "its %g seconds are over; it ends with the %llu trials that run", a->j->spec.seconds, (ull)a->j->n_running);
    return a->j->row.state == JOB_STOPPING;
}

static bool is_being_saved(struct asking *a, char *out, size_t cap)
{
    snprintf(out, cap, "a change of it is being saved");
    return a->j->ending || a->j->changing;
}

static bool parallel_limit(struct asking *a, char *out, size_t cap)
{
    int most = a->j->spec.parallel;
    snprintf(out, cap, a->j->n_running == 1 ? "%llu trial runs and parallel is %d: didact set %llu parallel=N (0: no limit)"
             : "%llu trials run and parallel is %d: didact set %llu parallel=N (0: no limit)", (ull)a->j->n_running, most, (ull)a->row->id);
    return most > 0 && a->j->n_running >= (uint64_t)most;
}

static bool later_job(struct asking *a, char *out, size_t cap)
{
    struct job *first = NULL;
    list_each(l, &a->c->sched->jobs) {
        struct job *o = list_entry(l, struct job, all);
        if (o->spec.priority > a->j->spec.priority && job_has_work(a->c->sched, o, NULL) && served(a, o) && (!first || o->spec.priority > first->spec.priority))
            first = o;
    }
    if (first)
        snprintf(out, cap, "job %llu %s has priority %d, this one %d: it is served first (didact set %llu priority=N)", (ull)first->row.id,
                 first->row.name, first->spec.priority, a->j->spec.priority, (ull)a->row->id);
    return first != NULL;
}

static bool warms_up(struct asking *a, char *out, size_t cap)
{
    snprintf(out, cap, "its warm-up: %llu of %d candidates are known; proposals come when all are", (ull)a->j->warm_done, a->j->n_warm);
    return a->j->warm_done < (uint64_t)a->j->n_warm;
}

static bool window(struct asking *a, char *out, size_t cap)
{
    struct job *j = a->j;
    if (!j->search || j->no_more || j->warm_done < (uint64_t)j->n_warm || search_next_index(j->search) >= j->total || search_ready(j->search))
        return false;
    uint64_t next = search_next_index(j->search), needed = next - (uint64_t)j->spec.window;
    struct trial *t = job_trial(j, needed);
    size_t at = (size_t)snprintf(out, cap, "proposal %llu waits for the result of trial %llu (window %d)", (ull)next, (ull)needed, j->spec.window);
    if (t && t->row.worker[0] && at < cap && t->phase != PHASE_WAITING)
        snprintf(out + at, cap - at, ", which %s computes (attempt %u)", t->row.worker, t->row.attempt);
    else if (t && at < cap)
        snprintf(out + at, cap - at, ", which waits for a worker (after %u attempts)", t->row.attempt);
    return true;
}

static bool audit_waits(struct asking *a, char *out, size_t cap)
{
    struct job *j = a->j;
    bool all = a->row->n.scored + a->row->n.failed >= j->total;
    if (!j->audit || (all ? audit_complete(j->audit) : audit_lets(j->audit, search_next_index(j->search))))
        return false;
    if (all)
        snprintf(out, cap, "all candidates have ended; the real trainings of its audit have not");
    else
        snprintf(out, cap, "proposal %llu waits for the real trainings of its audit (audit.action: stop)", (ull)search_next_index(j->search));
    return true;
}

static bool asks(struct asking *a, char *out, size_t cap)
{
    struct job *j = a->j;
    if (!j->search || !search_is_external(j->search) || search_next_index(j->search) >= job_last_total(j))
        return false;
    uint64_t next = search_next_index(j->search);
    snprintf(out, cap, "its searcher is outside: it has %llu of %llu proposals%s (didact propose %llu, didact finish %llu)", (ull)next,
             (ull)job_last_total(j), search_ready(j->search) ? " and waits for more" : "", (ull)a->row->id, (ull)a->row->id);
    return true;
}

static bool nothing_to_propose(struct asking *a, char *out, size_t cap)
{
    snprintf(out, cap, "%s", a->j->fail_text);
    return a->j->no_more;
}

static bool runs(struct asking *a, char *out, size_t cap)
{
    bool last = a->j->n_waiting == 0 && a->row->n.scored + a->row->n.failed + a->j->n_running >= a->j->total;
    if (a->j->n_running == 1)
        snprintf(out, cap, "1 trial is being computed%s", last ? ", the last one" : "");
    else
        snprintf(out, cap, "%llu trials are being computed%s", (ull)a->j->n_running, last ? ", the last ones" : "");
    return a->j->n_running > 0;
}

static bool failures(struct asking *a, char *out, size_t cap)
{
    const struct job_counts *n = &a->row->n;
    size_t at = (size_t)snprintf(out, cap, "%llu trial%s failed:", (ull)n->failed, s_of(n->failed));
    for (int r = FAIL_NONE + 1; r < FAIL_REASON_COUNT; r++)
        if (n->reason[r] && at < cap)
            at += (size_t)snprintf(out + at, cap - at, " %s %llu", fail_reason_name((enum fail_reason)r), (ull)n->reason[r]);
    if (n->reason[FAIL_CRASH] + n->reason[FAIL_TIMEOUT] + n->reason[FAIL_OOM] && at < cap)
        snprintf(out + at, cap - at, "; didact retry %llu tries crash, timeout and oom again", (ull)a->row->id);
    return n->failed > 0;
}

static bool ended(struct asking *a, char *out, size_t cap)
{
    if (a->row->reason[0])
        snprintf(out, cap, "%s", a->row->reason);
    else
        snprintf(out, cap, a->row->n.scored + a->row->n.failed == 1 ? "its %llu trial has ended" : "all %llu trials have ended",
                 (ull)(a->row->n.scored + a->row->n.failed));
    return true;
}

static bool waits_its_turn(struct asking *a, char *out, size_t cap)
{
    snprintf(out, cap, "its turn comes with the next free slot");
    return a->j->n_running == 0 && a->j->row.state == JOB_QUEUED && job_has_work(a->c->sched, a->j, NULL) && served(a, a->j);
}

static const struct reason {
    const char *code;
    bool        live, over; /* asked of jobs that live; that have ended */
    bool      (*holds)(struct asking *a, char *out, size_t cap);
} reasons[] = {
    { "store", true, false, store_down },         { "ended", false, true, ended },           { "paused", true, false, is_paused },
    { "stopping", true, false, is_stopping },     { "saving", true, false, is_being_saved }, { "no_workers", true, false, no_workers },
    { "device", true, false, no_device },
    { "priority", true, false, later_job },       { "busy", true, false, all_busy },         { "parallel", true, false, parallel_limit },
    { "warmup", true, false, warms_up },          { "window", true, false, window },            { "audit", true, false, audit_waits },
    { "outside", true, false, asks },
    { "proposals", true, false, nothing_to_propose },
    { "running", true, false, runs },             { "failures", true, true, failures },      { "memory", true, true, memory },
    { "turn", true, false, waits_its_turn },
};

static void add(json_t *list, const char *code, const char *text)
{
    json_array_append_new(list, json_pack("{s:s,s:s}", "code", code, "text", text));
}

static json_t *job_reasons(struct asking *a)
{
    json_t *list = json_array();
    char text[600];
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        bool asked = a->j ? reasons[i].live : reasons[i].over;
        if (asked && reasons[i].holds(a, text, sizeof text))
            add(list, reasons[i].code, text);
    }
    return list;
}

/* ---- the trial ---- */

/* What changed from parent to child, word by word: "c16k3 avg2 -> s32k3". Equal words at both ends are left out. */
void arch_change(const char *parent, const char *child, char *out, size_t cap)
{
    const char *p = parent, *c = child;
    while (*p && *p == *c) {
        const char *pe = p + strcspn(p, " "), *ce = c + strcspn(c, " ");
        if (pe - p != ce - c || strncmp(p, c, (size_t)(pe - p)) != 0)
            break;
        p = pe + strspn(pe, " ");
        c = ce + strspn(ce, " ");
    }
    size_t np = strlen(p), nc = strlen(c);
    for (;;) { /* take a whole word off both ends */
        size_t wp = np, wc = nc;
        while (wp > 0 && p[wp - 1] != ' ')
            wp--;
        while (wc > 0 && c[wc - 1] != ' ')
            wc--;
        if (wp == np || np - wp != nc - wc || memcmp(p + wp, c + wc, np - wp) != 0)
            break;
        for (np = wp; np > 0 && p[np - 1] == ' ';)
            np--;
        for (nc = wc; nc > 0 && c[nc - 1] == ' ';)
            nc--;
    }
    if (np == 0 || nc == 0)
        snprintf(out, cap, "%s%.*s", np ? "without " : nc ? "with " : "", (int)(np ? np : nc), np ? p : c);
    else
        snprintf(out, cap, "%.*s → %.*s", (int)np, p, (int)nc, c);
}

/* What a promotion changed, for its architecture and seed are those of the rung below: "4 → 16 steps, 1 → 2 initialisations". */
void rung_change(const struct job_spec *spec, int from, int to, char *out, size_t cap)
{
    const struct fidelity a = job_fidelity(spec, from), b = job_fidelity(spec, to);
    const int n = a.first_init + a.inits, m = b.first_init + b.inits;
    size_t at = 0;
    out[0] = 0;
    if (a.steps != b.steps)
        at = (size_t)snprintf(out, cap, "%d → %d steps", a.steps, b.steps);
    if (n != m && at < cap)
        snprintf(out + at, cap - at, "%s%d → %d initialisations", at ? ", " : "", n, m);
}

/* From the trial to its first ancestor. */
static json_t *lineage(struct asking *a, const struct trial_row *first)
{
    struct coord *c = a->c;
    json_t *list = json_array();
    struct trial_row *t = malloc(sizeof *t), *parent = malloc(sizeof *parent);
    struct job_spec *spec = malloc(sizeof *spec);
    char change[2 * ARCH_TEXT_MAX];
    if (t && parent && spec && job_spec_from(a->row->spec_json, spec, NULL) == 0) {
        *t = *first;
        for (int i = 0; i < MAX_LINEAGE; i++) {
            bool more = t->parent >= 0 && reader_trial(c->reader, t->job, (uint64_t)t->parent, parent) == 1;
            change[0] = 0;
            if (more && t->rung > parent->rung)
                rung_change(spec, parent->rung, t->rung, change, sizeof change);
            else if (more)
                arch_change(parent->arch, t->arch, change, sizeof change);
            json_array_append_new(list, json_pack("{s:I,s:s,s:o,s:o,s:s,s:o}", "trial", (json_int_t)t->idx, "state", trial_state_name(t->state),
                                  "score", t->state == TRIAL_SCORED ? doc_real(t->r.score) : json_null(), "score_se",
                                  t->state == TRIAL_SCORED ? doc_real(t->r.score_se) : json_null(), "arch", t->arch, "change",
                                  doc_text(change)));
            if (!more)
                break;
            *t = *parent;
        }
    }
    free(spec);
    free(t);
    free(parent);
    return list;
}

static void trial_reasons(struct asking *a, const struct trial_row *t, json_t *list)
{
    char text[600];
    if (t->state == TRIAL_SCORED && t->group == GROUP_WARMUP) {
        snprintf(text, sizeof text, "its zero-cost scores were computed in attempt %u on %s", t->attempt, t->worker);
        add(list, "scored", text);
        return;
    }
    if (t->state == TRIAL_FAILED) {
        snprintf(text, sizeof text, "failed with %s in attempt %u%s%s: %s", fail_reason_name(t->r.reason), t->attempt,
                 t->worker[0] ? " on " : "", t->worker, t->r.detail[0] ? t->r.detail : "nothing more is known");
        add(list, fail_reason_name(t->r.reason), text);
    } else if (t->state == TRIAL_SCORED) {
        if (t->from_book)
            snprintf(text, sizeof text, "scored %.4f, known from the score book: nothing was computed", t->r.score);
        else
            snprintf(text, sizeof text, "scored %.4f in attempt %u on %s", t->r.score, t->attempt, t->worker);
        add(list, "scored", text);
    } else if (t->state == TRIAL_CANCELLED) {
        snprintf(text, sizeof text, "cancelled when its job ended: %s", a->row->reason[0] ? a->row->reason : job_state_name(a->row->state));
        add(list, "cancelled", text);
    } else if (t->state == TRIAL_RUNNING) {
        snprintf(text, sizeof text, "%s computes attempt %u", t->worker, t->attempt);
        add(list, "running", text);
    } else {
        add(list, "waiting", t->attempt ? "waits to be given out again" : "waits to be given out");
    }
    if (t->deaths) {
        snprintf(text, sizeof text, "%u of its workers were lost while they held it", t->deaths);
        add(list, "deaths", text);
    }
    if (t->told_failed)
        add(list, "retried", "it was tried again after a failure; the searcher knows it as failed, so that the search can be replayed");
}

static int trial_why(struct asking *a, uint64_t idx, json_t *d, struct errbuf *e)
{
    struct trial_row *t = malloc(sizeof *t);
    json_t *why = json_array();
    int rc = t ? reader_trial(a->c->reader, a->row->id, idx, t) : -ERR_NOMEM;
    if (rc == 1) {
        json_t *spec = json_loads(a->row->spec_json, 0, NULL);
        const char *space = json_string_value(json_object_get(spec, "space"));
        trial_reasons(a, t, why);
        json_object_set_new(d, "trial", doc_trial(a->c, t, space));
        json_object_set_new(d, "lineage", lineage(a, t));
        json_decref(spec);
    }
    if (rc == 1 && (t->state == TRIAL_WAITING || t->state == TRIAL_RUNNING))
        json_array_extend(why, json_object_get(d, "why")); /* what holds up its job holds it up */
    if (rc == 1)
        json_object_set(d, "why", why);
    json_decref(why);
    free(t);
    if (rc < 0)
        return err_set(e, (enum err)-rc, "trial %llu of job %llu cannot be read", (ull)idx, (ull)a->row->id);
    if (rc == 0)
        return err_set(e, ERR_NOTFOUND, "job %llu has no trial %llu%s", (ull)a->row->id, (ull)idx,
                     a->j && idx < a->j->total ? ": it has not been given out yet" : "");
    return 0;
}

static bool on_event(void *arg, const struct event_row *ev)
{
    json_array_append_new(arg, json_pack("{s:I,s:o,s:s,s:s}", "at_ms", (json_int_t)ev->at_ms, "trial",
                          ev->trial >= 0 ? json_integer(ev->trial) : json_null(), "kind", ev->kind, "text", ev->text));
    return true;
}

int doc_why(struct coord *c, const struct job_row *stored, int64_t trial, json_t **out, struct errbuf *e)
{
    struct job *j = sched_job(c->sched, stored->id);
    struct asking a = { c, j ? &j->row : stored, j };
    json_t *d = json_object(), *events = json_array();
    int rc = reader_events(c->reader, stored->id, trial, MAX_EVENTS, on_event, events) < 0 ? err_set(e, ERR_IO, "the store cannot be read") : 0;
    json_object_set_new(d, "job", doc_job(c, stored, false));
    json_object_set_new(d, "why", job_reasons(&a));
    json_object_set_new(d, "events", events);
    if (rc == 0 && trial >= 0)
        rc = trial_why(&a, (uint64_t)trial, d, e);
    if (rc < 0) {
        json_decref(d);
        return rc;
    }
    *out = d;
    return 0;
}
