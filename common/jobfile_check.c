/* jobfile_check.c - values against each other. Each check says which keys contradict and where the later one stands. */
#include "common/jobfile.h"
#include "common/score_column.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void utf8_clean(char *s)
{
    for (unsigned char *p = (unsigned char *)s; *p;) {
        int more = *p < 0x80 ? 0 : *p >= 0xF0 && *p < 0xF5 ? 3 : *p >= 0xE0 && *p < 0xF0 ? 2 : *p >= 0xC2 && *p < 0xE0 ? 1 : -1;
        int have = 0;
        while (have < more && (p[have + 1] & 0xC0) == 0x80)
            have++;
        /* Overlong forms, surrogates and what lies beyond U+10FFFF show in the second byte. */
        bool bad = more < 0 || have < more || (*p == 0xE0 && p[1] < 0xA0) || (*p == 0xED && p[1] > 0x9F) || (*p == 0xF0 && p[1] < 0x90) ||
                   (*p == 0xF4 && p[1] > 0x8F);
        if (bad)
            *p = '?';
        p += bad ? 1 : more + 1;
    }
}

void problem(struct problems *p, int line, const char *fmt, ...)
{
    if (p->n < PROBLEMS_SHOWN) {
        char   *to = p->text[p->n];
        size_t  cap = sizeof p->text[0], n = 0;
        va_list ap;
        if (line > 0)
            n = (size_t)snprintf(to, cap, "line %d: ", line);
        va_start(ap, fmt);
        vsnprintf(to + n, cap - n, fmt, ap);
        va_end(ap);
    }
    p->n++;
}

int problems_result(const struct problems *p, struct errbuf *e)
{
    char   text[PROBLEMS_SHOWN * sizeof p->text[0] + 32] = "";
    size_t n = 0;
    if (p->n == 0)
        return 0;
    for (int i = 0; i < p->n && i < PROBLEMS_SHOWN; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", i ? "; " : "", p->text[i]);
    if (p->n > PROBLEMS_SHOWN)
        snprintf(text + n, sizeof text - n, "; and %d more", p->n - PROBLEMS_SHOWN);
    err_set(e, ERR_INPUT, "%.80s%s%s", p->file ? p->file : "", p->file ? ": " : "", text);
    if (e)
        utf8_clean(e->text);
    return -ERR_INPUT;
}

struct checker {
    struct job_spec *s;
    const bool      *given;
    const int       *line;
    struct problems *p;
};

static int line_of(const struct checker *c, const char *path)
{
    return c->line[job_key_index(path)];
}

/* The later of two keys: where a reader looks first. */
static int later(const struct checker *c, const char *a, const char *b)
{
    int x = line_of(c, a), y = line_of(c, b);
    return x > y ? x : y;
}

static void check_limits(const struct checker *c, const char *low, uint64_t min, const char *high, uint64_t max)
{
    if (max && min > max)
        problem(c->p, later(c, low, high), "'%s' is %llu but '%s' is %llu: nothing can satisfy both", low, (unsigned long long)min,
                high, (unsigned long long)max);
}

static void check_scores(const struct checker *c)
{
    const struct scores_cfg *k = &c->s->scores;
    unsigned computed = 0, seen = 0;
    for (int i = 0; i < k->n_zero_cost; computed |= 1u << k->zero_cost[i++])
        if (computed >> k->zero_cost[i] & 1)
            problem(c->p, line_of(c, "scores.zero_cost"), "'scores.zero_cost' names %s twice", zero_cost_table[k->zero_cost[i]].name);
    for (int i = 0; i < k->n_fuse; seen |= 1u << k->fuse[i++]) {
        const char *name = score_columns[k->fuse[i]].name;
        if (seen >> k->fuse[i] & 1)
            problem(c->p, line_of(c, "scores.fuse"), "'scores.fuse' names %s twice", name);
        if (k->fuse[i] >= COLUMN_ZERO_COST && !(computed >> (k->fuse[i] - COLUMN_ZERO_COST) & 1))
            problem(c->p, later(c, "scores.fuse", "scores.zero_cost"), "'scores.fuse' has %s, which 'scores.zero_cost' does not compute", name);
        if (k->fuse[i] == COLUMN_LATENCY && !job_latency_batch(c->s))
            problem(c->p, later(c, "scores.fuse", "latency.measure"), "'scores.fuse' has latency, but nothing measures it: 'latency.measure: true'");
    }
}

/* From rung to rung, the last of them `fidelity`, more is spent. */
static void check_halving(const struct checker *c)
{
    const struct job_spec *s = c->s;
    if (s->halving.n_inits && s->halving.n_inits != s->halving.n_steps) {
        problem(c->p, later(c, "halving.inits", "halving.steps"), "'halving.inits' has %d items, 'halving.steps' %d", s->halving.n_inits,
                s->halving.n_steps);
        return;
    }
    for (int r = 0; r < s->halving.n_steps; r++) {
        struct fidelity low = job_fidelity(s, r), high = job_fidelity(s, r + 1);
        bool whole = high.steps == 0; /* all steps of a curriculum that is looked at on submission */
        bool fewer = !whole && high.steps < low.steps;
        if (fewer || high.inits < low.inits) {
            problem(c->p, later(c, "halving.steps", "fidelity.steps"), "'halving': rung %d has %d %s, and what follows %d: they must not fall", r,
                    fewer ? low.steps : low.inits, fewer ? "steps" : "initialisations", fewer ? high.steps : high.inits);
            return;
        }
        if (!whole && high.steps == low.steps && high.inits == low.inits) {
            problem(c->p, later(c, "halving.steps", "fidelity.steps"), "'halving': rung %d (%d steps, %d initialisations) costs as much as what"
                    " follows (%d, %d)", r, low.steps, low.inits, high.steps, high.inits);
            return;
        }
    }
}

/* From round to round there are more of them, and at first enough to know how much scores of one network differ. */
static void check_racing(const struct checker *c)
{
    static const char *const asks[] = { "racing.among", "racing.z", "racing.after", "racing.share" };
    const struct racing_cfg *r = &c->s->racing;
    for (size_t i = 0; i < sizeof asks / sizeof *asks && r->n_inits == 0 && line_of(c, "racing.inits") == 0; i++)
        if (line_of(c, asks[i]) != 0) {
            problem(c->p, line_of(c, asks[i]), "'%s' asks for a race, but 'racing.inits' is not given", asks[i]);
            return;
        }
    if (r->n_inits && c->s->fidelity.inits < 2)
        problem(c->p, later(c, "racing.inits", "fidelity.inits"), "'racing' needs 'fidelity.inits' of at least 2: from one the noise of a score is not known");
    for (int k = 0, least = c->s->fidelity.inits; k < r->n_inits; least = r->inits[k++])
        if (r->inits[k] <= least) {
            problem(c->p, later(c, "racing.inits", "fidelity.inits"), "'racing.inits' must rise from 'fidelity.inits' (%d): %d follows %d",
                    c->s->fidelity.inits, r->inits[k], least);
            return;
        }
    bool stored = !line_of(c, "racing.inits") && !line_of(c, "racing.after") && !line_of(c, "budget.trials");
    if (r->n_inits && !stored && r->after >= c->s->trials)
        problem(c->p, later(c, "racing.after", "budget.trials"), "'racing.after' is %d, and 'budget.trials' %d: there would be no race", r->after,
                c->s->trials);
}

/* A keep, a score or a vote of no candidates, and a score where others vote, have no effect. */
static void check_warmup(const struct checker *c)
{
    static const char *const asks[] = { "warmup.keep", "warmup.score", "warmup.vote" };
    const struct warmup_cfg *w = &c->s->warmup;
    for (size_t i = 0; i < sizeof asks / sizeof *asks && w->candidates == 0 && line_of(c, "warmup.candidates") == 0; i++)
        if (line_of(c, asks[i]) != 0) {
            problem(c->p, line_of(c, asks[i]), "'%s' asks for a warm-up, but 'warmup.candidates' is not given", asks[i]);
            return;
        }
    const bool stored = !line_of(c, "warmup.score") && !line_of(c, "warmup.vote");
    if (w->n_vote && !stored && strcmp(w->score, job_key_at(job_key_index("warmup.score"))->def[JOB_SEARCH]) != 0)
        problem(c->p, later(c, "warmup.score", "warmup.vote"), "'warmup.score' is %s, but 'warmup.vote' ranks instead of it", w->score);
    if (w->candidates > 0 && w->keep > w->candidates)
        problem(c->p, later(c, "warmup.keep", "warmup.candidates"), "'warmup.keep' is %d, more than the %d candidates", w->keep, w->candidates);
    for (int i = 0; i < w->n_vote; i++) {
        const int k = w->vote[i];
        if (!job_column_votes(k))
            problem(c->p, line_of(c, "warmup.vote"), "'warmup.vote' has %s, which nobody knows before a trial; params, macs and the zero-cost scores"
                    " can vote", score_columns[k].name);
        for (int j = 0; j < i; j++)
            if (w->vote[j] == k)
                problem(c->p, line_of(c, "warmup.vote"), "'warmup.vote' names %s twice", score_columns[k].name);
    }
}

/* An outside program starts where it likes, and spends as much on each candidate. */
static void check_external(const struct checker *c)
{
    const struct job_spec *s = c->s;
    if (strcmp(s->searcher.name, "external") != 0)
        return;
    if (s->halving.n_steps)
        problem(c->p, later(c, "halving.steps", "searcher.name"), "'halving' makes proposals of its own: it does not go with the searcher external");
    if (s->racing.n_inits)
        problem(c->p, later(c, "racing.inits", "searcher.name"), "'racing' makes proposals of its own: it does not go with the searcher external");
    if (s->warmup.candidates || s->warmup.n_vote)
        problem(c->p, later(c, s->warmup.candidates ? "warmup.candidates" : "warmup.vote", "searcher.name"), "'warmup' makes proposals of its own: it does not go with the searcher external");
}

static void check_audit(const struct checker *c)
{
    const struct audit_cfg *a = &c->s->audit;
    const struct job_key *k;
    bool off = a->share <= 0;
    for (int i = 0; off && !c->given[job_key_index("audit.share")] && (k = job_key_at(i)); i++)
        if (c->given[i] && strncmp(k->path, "audit.", strlen("audit.")) == 0) {
            problem(c->p, c->line[i], "'%s' asks for an audit, but 'audit.share' is not given", k->path);
            return;
        }
    if (off)
        return;
    if (a->min > a->max)
        problem(c->p, later(c, "audit.min", "audit.max"), "'audit.min' is %d but 'audit.max' is %d", a->min, a->max);
    if (a->min > c->s->trials)
        problem(c->p, later(c, "audit.min", "budget.trials"), "'audit.min' is %d, more than the %d candidates of 'budget.trials'", a->min,
                c->s->trials);
    if (a->control != (a->control_curriculum[0] != 0))
        problem(c->p, later(c, "audit.control", "audit.control_curriculum"), a->control ? "'audit.control' needs 'audit.control_curriculum'"
                : "'audit.control_curriculum' is given but 'audit.control' is false");
}

/* The message opens with the key: it says on which line. */
static void check_proxy(const struct checker *c, const struct proxy *p, const char *section)
{
    const struct space *space = space_find(c->s->space);
    struct errbuf e = { 0 };
    char key[40];
    if (!space || space_proxy_check(space, p, section, &e) == 0)
        return;
    snprintf(key, sizeof key, "%.*s", (int)strcspn(e.text, ": "), e.text);
    problem(c->p, line_of(c, key), "'%s'%s", key, e.text + strlen(key));
}

static void check_search(const struct checker *c)
{
    const struct job_spec *s = c->s;
    const struct fidelity *f = &s->fidelity;
    check_limits(c, "constraints.min_params", s->constraints.min_params, "constraints.max_params", s->constraints.max_params);
    check_limits(c, "constraints.min_macs", s->constraints.min_macs, "constraints.max_macs", s->constraints.max_macs);
    if (strcmp(s->searcher.name, "evolution") == 0 && s->searcher.sample > s->searcher.population)
        problem(c->p, later(c, "searcher.sample", "searcher.population"), "'searcher.sample' is %d, more than the population of %d",
                s->searcher.sample, s->searcher.population);
    check_halving(c);
    check_racing(c);
    check_external(c);
    check_warmup(c);
    if (s->n_objectives < 1)
        problem(c->p, line_of(c, "objectives"), "'objectives' is empty; [{metric: score}] asks for the score alone");
    for (int i = 1; i < s->n_objectives; i++)
        for (int j = 0; j < i; j++)
            if (s->objective[i].metric == s->objective[j].metric)
                problem(c->p, line_of(c, "objectives"), "'objectives' names %s twice", metric_name(s->objective[i].metric));
    for (int i = 0; i < f->n_checkpoints; i++) {
        if (i && f->checkpoint[i] <= f->checkpoint[i - 1]) {
            problem(c->p, line_of(c, "fidelity.checkpoints"), "'fidelity.checkpoints' must rise: %d follows %d", f->checkpoint[i],
                    f->checkpoint[i - 1]);
            break;
        }
        if (f->steps && f->checkpoint[i] > f->steps) {
            problem(c->p, later(c, "fidelity.checkpoints", "fidelity.steps"), "'fidelity.checkpoints' has %d, beyond 'fidelity.steps' (%d)",
                    f->checkpoint[i], f->steps);
            break;
        }
    }
    check_scores(c);
    check_audit(c);
    if (f->n_lr_scales < 1)
        problem(c->p, line_of(c, "fidelity.lr_scales"), "'fidelity.lr_scales' is empty; [1] uses the learned step sizes as they are");
    check_proxy(c, &f->proxy, "fidelity");
}

static void check_teach(const struct checker *c)
{
    const struct teach_cfg *t = &c->s->teach;
    for (int i = 0; i < t->n_meta_at; i++)
        if (t->meta_at[i] >= t->steps || (i && t->meta_at[i] <= t->meta_at[i - 1])) {
            problem(c->p, later(c, "teach.meta_at", "teach.steps"), "'teach.meta_at': steps must rise and stay below 'teach.steps' (%d), not %d",
                    t->steps, t->meta_at[i]);
            break;
        }
    if (t->learners * t->inits > TEACH_MAX_LEARNERS)
        problem(c->p, later(c, "teach.learners", "teach.inits"), "'teach.learners' times 'teach.inits' is %d, more than %d learners a meta-step",
                t->learners * t->inits, TEACH_MAX_LEARNERS);
    if (t->n_mix < 1)
        problem(c->p, line_of(c, "teach.learners_mix"), "'teach.learners_mix' is empty: there would be no learners");
    for (int i = 1; i < t->n_mix; i++)
        for (int j = 0; j < i; j++)
            if (strcmp(t->mix_space[i], t->mix_space[j]) == 0)
                problem(c->p, line_of(c, "teach.learners_mix"), "'teach.learners_mix' names %s twice", t->mix_space[i]);
}

static void check_arch_list(const struct checker *c)
{
    struct verify_cfg  *v = &c->s->verify;
    const struct space *space = space_find(c->s->space);
    for (int i = 0; i < v->n_arch && space; i++) {
        char text[ARCH_TEXT_MAX];
        struct errbuf e = { 0 };
        if (space->canon(space, v->arch[i], text, &e) < 0)
            problem(c->p, line_of(c, "verify.arch"), "'verify.arch' item %d: %s", i + 1, e.text);
        else
            strncpy(v->arch[i], text, ARCH_TEXT_MAX); /* the rest becomes zeros: equal specs are equal bytes */
        for (int j = 0; j < i; j++)
            if (strcmp(v->arch[i], v->arch[j]) == 0)
                problem(c->p, line_of(c, "verify.arch"), "'verify.arch' items %d and %d are the same network", j + 1, i + 1);
    }
}

static void check_verify(const struct checker *c)
{
    const struct verify_cfg *v = &c->s->verify;
    if (v->of[0] && v->n_arch)
        problem(c->p, later(c, "verify.of", "verify.arch"), "'verify.of' and 'verify.arch' exclude each other");
    else if (!v->of[0] && !v->n_arch)
        problem(c->p, 0, "give 'verify.of' (a search job) or 'verify.arch' (a list of architectures)");
    else if (v->of[0] && v->top + v->random < 1)
        problem(c->p, later(c, "verify.top", "verify.random"), "'verify.top' and 'verify.random' are both 0: nothing to train");
    if (v->n_arch && !c->s->dataset[0] && !c->s->dataset_hash[0])
        problem(c->p, 0, "'dataset' is missing: architectures of 'verify.arch' need one to train on");
    check_arch_list(c);
    if (!v->of[0]) /* else the search says which space; the coordinator checks */
        check_proxy(c, &v->proxy, "verify");
}

void job_check(struct job_spec *s, const bool *given, const int *line, struct problems *p)
{
    struct checker c = { s, given, line, p };
    if (s->name[0] && strspn(s->name, "0123456789") == strlen(s->name))
        problem(p, line_of(&c, "name"), "'name' must not be a number: numbers name jobs already");
    if (s->kind == JOB_SEARCH)
        check_search(&c);
    else if (s->kind == JOB_TEACH)
        check_teach(&c);
    else
        check_verify(&c);
}
