/* space_file_parse.c - YAML into struct sf. Every problem is collected with its line. */
#include "common/jobfile.h"
#include "common/space_file_int.h"
#include "common/suggest.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SF_NAME(id, name, ...) name,
static const char *const key_names[SF_KEY_COUNT] = { SF_KEYS(SF_NAME) };
static const char *const op_names[SFOP_COUNT] = { SF_OPS(SF_NAME) };
#undef SF_NAME
#define SF_RANGE(id, name, min, max, def) { min, max, def },
static const struct range { int min, max; const char *def; } ranges[SF_KEY_COUNT] = { SF_KEYS(SF_RANGE) };
#undef SF_RANGE
#define SF_READS(id, name, keys) keys,
static const unsigned reads[SFOP_COUNT] = { SF_OPS(SF_READS) };
#undef SF_READS
static const char *const stage_names[SF_STAGE_COUNT] = { "repeat", "widen" };
static const struct range stage_ranges[SF_STAGE_COUNT] = { { 1, 8, "1" }, { 1, 4, "1" } };
static const char *const top_names[SF_TOP_COUNT] = { "norm", "act", "head" };
static const char *const norm_names[SFNORM_COUNT] = { "bn", "mbn", "wn", "none" };
static const char *const act_names[SFACT_COUNT] = { "relu", "lrelu", "tanh", "none" };
static const char *const head_names[SFHEAD_COUNT] = { "gap", "flat" };
static const char *const connect_names[SFCON_COUNT] = { "none", "add", "concat" };
static const char *const join_names[SFJOIN_COUNT] = { "add", "concat" };
static const char *const pad_names[SFPAD_COUNT] = { "zero", "reflect" };
static const char *const order_names[SFORDER_COUNT] = { "post", "pre" };

static const struct words { enum sf_owner of; int key; const char *const *word; int n; } words[] = {
    { SF_OF_SPACE, SF_NORM, norm_names, SFNORM_COUNT },      { SF_OF_SPACE, SF_ACT, act_names, SFACT_COUNT },
    { SF_OF_SPACE, SF_HEAD, head_names, SFHEAD_COUNT },      { SF_OF_SLOT, SF_OP, op_names, SFOP_COUNT },
    { SF_OF_SLOT, SF_OWN_NORM, norm_names, SFNORM_COUNT },   { SF_OF_SLOT, SF_OWN_ACT, act_names, SFACT_COUNT },
    { SF_OF_SLOT, SF_CONNECT, connect_names, SFCON_COUNT },  { SF_OF_SLOT, SF_JOIN, join_names, SFJOIN_COUNT },
    { SF_OF_SLOT, SF_PAD, pad_names, SFPAD_COUNT },          { SF_OF_SLOT, SF_ORDER, order_names, SFORDER_COUNT },
};

int sf_words(const struct sf *f, const struct sf_var *v, const char *out[SF_MAX_WORDS])
{
    int n = 0;
    if (v->of == SF_OF_SLOT && v->key == SF_FROM) { /* what stands above it */
        out[n++] = "none";
        out[n++] = "input";
        for (int i = 0; i < v->owner; i++)
            out[n++] = f->slot[i].name;
        return n;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (int k = 0; words[i].of == v->of && words[i].key == v->key && k < words[i].n; k++)
            out[n++] = words[i].word[k];
    return n;
}

const char *sf_word(const struct sf *f, const struct sf_var *v, int value)
{
    const char *w[SF_MAX_WORDS];
    int n = sf_words(f, v, w);
    return value >= 0 && value < n ? w[value] : NULL;
}

unsigned sf_reads(int op)
{
    return reads[op];
}

struct reader {
    struct sf        *f;
    const struct jtree *t;
    struct problems  *p;
};

static const struct jnode *member(const struct reader *r, const struct jnode *map, const char *key)
{
    for (int i = map->kind == J_MAP ? map->first : 0; i; i = r->t->node[i].next)
        if (strcmp(r->t->node[i].key, key) == 0)
            return &r->t->node[i];
    return NULL;
}

/* Only these keys, each once. */
static void known_keys(const struct reader *r, const struct jnode *map, const char *const *known, int n, const char *where)
{
    char near[96];
    for (int i = map->first; i; i = r->t->node[i].next) {
        const struct jnode *m = &r->t->node[i];
        bool found = false;
        for (int k = 0; k < n; k++)
            found |= strcmp(m->key, known[k]) == 0;
        if (!found)
            problem(r->p, m->line, "%s has no key '%.30s'%s", where, m->key, suggest_text(near, sizeof near, m->key, known, n));
        else if (member(r, map, m->key) != m)
            problem(r->p, m->line, "'%s' is given twice", m->key);
    }
}

/* What stands where another kind of value should, for messages. */
static const char *found(const struct jnode *x)
{
    return x->kind == J_MAP ? "a mapping" : x->kind == J_LIST ? "a list" : x->text;
}

static const struct range *range_of(const struct sf_var *v)
{
    return v->of == SF_OF_STAGE ? &stage_ranges[v->key] : &ranges[v->key];
}

/* One value of a variable; -1 after a problem. */
static int read_value(const struct reader *r, const struct sf_var *v, const struct jnode *x)
{
    const char *w[SF_MAX_WORDS];
    char near[96], *end, list[160] = "";
    int  n = sf_words(r->f, v, w);
    const bool one = x->kind == J_SCALAR;
    if (n) {
        for (int i = 0; i < n; i++) {
            if (one && strcmp(w[i], x->text) == 0)
                return i;
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", w[i]);
        }
        if (one)
            problem(r->p, x->line, "'%s' must be of %s, not '%.20s'%s", v->name, list, x->text, suggest_text(near, sizeof near, x->text, w, n));
        else
            problem(r->p, x->line, "'%s' must be of %s, not %s", v->name, list, found(x));
        return -1;
    }
    bool odd = v->of == SF_OF_SLOT && v->key == SF_KERNEL;
    const struct range *g = range_of(v);
    long value = one && x->plain && isdigit((unsigned char)*x->text) ? strtol(x->text, &end, 10) : -1;
    if (value < g->min || value > g->max || *end || (odd && value % 2 == 0)) {
        problem(r->p, x->line, "'%s' must be %s from %d to %d%s%s", v->name, odd ? "odd numbers" : "numbers", g->min, g->max, one ? "" : ", not ",
                one ? "" : found(x));
        return -1;
    }
    return (int)value;
}

/* "body.width", or "norm" of the whole. */
static void name_var(const struct sf *f, struct sf_var *v)
{
    const char *owner = v->of == SF_OF_SLOT ? f->slot[v->owner].name : v->of == SF_OF_STAGE ? f->stage[v->owner].name : "";
    const char *key = v->of == SF_OF_SLOT ? key_names[v->key] : v->of == SF_OF_STAGE ? stage_names[v->key] : top_names[v->key];
    snprintf(v->name, sizeof v->name, "%.*s%s%s", SF_NAME_LEN, owner, *owner ? "." : "", key);
}

/* What a key means that is not there: a value, or (width, norm, act) that the slot states none. */
static int default_value(const struct sf *f, const struct sf_var *v)
{
    const char *w[SF_MAX_WORDS], *def = v->of == SF_OF_SPACE ? "" : range_of(v)->def;
    int n = sf_words(f, v, w);
    if (v->of == SF_OF_SLOT && (v->key == SF_OWN_NORM || v->key == SF_OWN_ACT))
        return SF_INHERIT;
    for (int i = 0; i < n; i++)
        if (strcmp(w[i], def) == 0)
            return i;
    return n ? 0 : atoi(def);
}

/* A variable from a value or a list of values; `x` NULL: the default. */
static int read_var(const struct reader *r, enum sf_owner of, int owner, int key, const struct jnode *x)
{
    struct sf *f = r->f;
    struct sf_var *v = &f->var[f->n_vars];
    v->of = of;
    v->owner = owner;
    v->key = key;
    name_var(f, v);
    if (!x) {
        v->value[v->n++] = default_value(f, v);
        return f->n_vars++;
    }
    int first = x->kind == J_LIST ? x->first : 0;
    if (x->kind == J_LIST && !first)
        problem(r->p, x->line, "'%s' is an empty list", v->name);
    for (int i = first; i || x->kind != J_LIST; i = r->t->node[i].next) {
        const struct jnode *item = x->kind == J_LIST ? &r->t->node[i] : x;
        int value = read_value(r, v, item);
        for (int k = 0; k < v->n && value >= 0; k++)
            if (v->value[k] == value)
                problem(r->p, item->line, "'%s' lists %.20s twice", v->name, item->text);
        if (v->n == SF_MAX_VALUES) {
            problem(r->p, item->line, "'%s' has more than %d values", v->name, SF_MAX_VALUES);
            break;
        }
        v->value[v->n++] = value < 0 ? 0 : value;
        if (x->kind != J_LIST)
            break;
    }
    v->n = v->n ? v->n : 1; /* of an empty list: told */
    return f->n_vars++;
}

/* ---- conditions ---- */

/* Which values of each variable are left when a condition holds. What a condition names is live, so its owner is there and its operation
 * reads it; that asks for values of others in turn. All of it must be so (sf_settle is the whole rule), though it is not all that must:
 * where no value is left, the condition never holds; where some are, it may. */
struct left {
    const struct sf *f;
    unsigned excluded[SF_MAX_VARS]; /* bit i: the i-th value */
    bool     asked[SF_MAX_VARS];    /* what its being live asks for is in already */
    int      empty;                 /* the first variable without a value; -1 */
};

static void ask(struct left *l, int var, unsigned allowed);

static void ask_all(struct left *l, const struct sf_cond *c)
{
    for (int i = 0; i < c->n; i++)
        ask(l, c->v[i].var, c->v[i].allowed);
}

static unsigned values_but(const struct sf_var *v, int value)
{
    unsigned set = 0;
    for (int i = 0; i < v->n; i++)
        set |= v->value[i] != value ? 1u << i : 0;
    return set;
}

static unsigned ops_that_read(const struct sf_var *op, int key)
{
    unsigned set = 0;
    for (int i = 0; i < op->n; i++)
        set |= reads[op->value[i]] & SF_B(key) ? 1u << i : 0;
    return set;
}

static void ask(struct left *l, int var, unsigned allowed)
{
    const struct sf *f = l->f;
    const struct sf_var *v = &f->var[var];
    l->excluded[var] |= ~allowed;
    if (l->empty < 0 && (l->excluded[var] | ~0u << v->n) == ~0u)
        l->empty = var;
    if (l->asked[var] || v->of == SF_OF_SPACE)
        return;
    l->asked[var] = true;
    const struct sf_slot *s = v->of == SF_OF_SLOT ? &f->slot[v->owner] : NULL;
    const int stage = s ? s->stage : v->owner;
    if (stage >= 0)
        ask_all(l, &f->stage[stage].when);
    if (s)
        ask_all(l, &s->when);
    if (s && v->key != SF_OP)
        ask(l, s->var[SF_OP], ops_that_read(&f->var[s->var[SF_OP]], v->key));
    if (s && (v->key == SF_DILATION || v->key == SF_PAD))
        ask(l, s->var[SF_KERNEL], values_but(&f->var[s->var[SF_KERNEL]], 1));
    if (s && v->key == SF_JOIN)
        ask(l, s->var[SF_FROM], values_but(&f->var[s->var[SF_FROM]], SFFROM_NONE));
}

/* stage: of which the slot is, -1: none. */
static void check_when(const struct reader *r, const char *name, const struct sf_cond *c, int stage, int line)
{
    struct left l = { .f = r->f, .empty = -1 };
    if (stage >= 0)
        ask_all(&l, &r->f->stage[stage].when);
    ask_all(&l, c);
    if (l.empty >= 0)
        problem(r->p, line, "'when' of %s never holds: no value of '%s' goes with all that it asks for", name, r->f->var[l.empty].name);
}

/* when: {body.op: [sep, neck]}: variables of the slots before. */
static void read_when(const struct reader *r, const char *name, struct sf_cond *to, const struct jnode *when, int stage)
{
    struct sf *f = r->f;
    if (when->kind != J_MAP)
        problem(r->p, when->line, "'when' of %s must be {slot.key: value, …}", name);
    for (int i = when->kind == J_MAP ? when->first : 0; i; i = r->t->node[i].next) {
        const struct jnode *m = &r->t->node[i];
        const char *known[SF_MAX_VARS];
        char near[96];
        int var = -1;
        for (int k = 0; k < f->n_vars; k++) {
            known[k] = f->var[k].name;
            var = strcmp(m->key, known[k]) == 0 ? k : var;
        }
        if (var < 0) {
            problem(r->p, m->line, "'when' of %s: no slot above has '%.30s'%s", name, m->key, suggest_text(near, sizeof near, m->key, known, f->n_vars));
            continue;
        }
        if (member(r, when, m->key) != m || (m->kind == J_LIST && !m->first)) {
            problem(r->p, m->line, m->first || m->kind != J_LIST ? "'when' of %s: '%s' is given twice" : "'when' of %s: '%s' is an empty list", name, m->key);
            continue;
        }
        if (to->n == SF_MAX_WHEN) {
            problem(r->p, m->line, "'when' of %s has more than %d conditions", name, SF_MAX_WHEN);
            break;
        }
        struct sf_when *w = &to->v[to->n++];
        w->var = var;
        f->var[var].referred = true;
        for (int k = m->kind == J_LIST ? m->first : 1; k; k = m->kind == J_LIST ? r->t->node[k].next : 0) {
            const struct jnode *item = m->kind == J_LIST ? &r->t->node[k] : m;
            int value = read_value(r, &f->var[var], item), at = -1;
            for (int j = 0; j < f->var[var].n; j++)
                at = f->var[var].value[j] == value ? j : at;
            if (value >= 0 && at < 0)
                problem(r->p, item->line, "'when' of %s: '%s' is never %.20s", name, m->key, item->text);
            w->allowed |= at >= 0 ? 1u << at : 0;
        }
    }
    if (r->p->n == 0) /* else something it names may not be as it was meant */
        check_when(r, name, to, stage, when->line);
}

/* ---- slots and stages ---- */

/* The name of a slot or stage, into `to`; unlike all others. */
static void read_name(const struct reader *r, const struct jnode *name, const char *what, char to[SF_NAME_LEN + 1])
{
    static const char *const taken[] = { "head", "input", "none" };
    const struct sf *f = r->f;
    size_t n = strlen(name->text);
    bool bad = !n || n > SF_NAME_LEN || strspn(name->text, "abcdefghijklmnopqrstuvwxyz_") != n;
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
        bad |= strcmp(name->text, taken[i]) == 0;
    if (bad)
        problem(r->p, name->line, "a %s's name is 1 to %d of a-z and _, and not head, input or none", what, SF_NAME_LEN);
    for (int i = 0; i < f->n_slots; i++)
        if (f->slot[i].name != to && strcmp(f->slot[i].name, name->text) == 0)
            problem(r->p, name->line, "there is a slot '%s' already (line %d)", f->slot[i].name, f->slot[i].line);
    for (int i = 0; i < f->n_stages; i++)
        if (f->stage[i].name != to && strcmp(f->stage[i].name, name->text) == 0)
            problem(r->p, name->line, "there is a stage '%s' already (line %d)", f->stage[i].name, f->stage[i].line);
    snprintf(to, SF_NAME_LEN + 1, "%.*s", SF_NAME_LEN, name->text);
}

static bool may_be(const struct sf *f, const struct sf_slot *s, int op)
{
    const struct sf_var *v = &f->var[s->var[SF_OP]];
    for (int i = 0; i < v->n; i++)
        if (v->value[i] == op)
            return true;
    return false;
}

/* A hidden layer ends the images: what follows is hidden layers, and none is repeated with what has images. */
static void check_dense(const struct reader *r, int index)
{
    const struct sf *f = r->f;
    const struct sf_slot *s = &f->slot[index], *first = s->stage >= 0 ? &f->slot[f->stage[s->stage].first] : s;
    const struct sf_var *v = &f->var[s->var[SF_OP]];
    bool dense = may_be(f, s, SFOP_DENSE), image = false, after = false;
    for (int i = 0; i < v->n; i++)
        image |= v->value[i] != SFOP_DENSE && v->value[i] != SFOP_NONE;
    for (int i = 0; i < index; i++)
        after |= may_be(f, &f->slot[i], SFOP_DENSE);
    if (image && (dense || after))
        problem(r->p, s->line, dense ? "'%s.op': dense goes with none alone: it ends the images" : "'%s' follows a hidden layer (dense), and there are no"
                " images any more", s->name);
    else if (dense && !may_be(f, first, SFOP_DENSE))
        problem(r->p, s->line, "'%s' is a hidden layer (dense) in a stage that has images", s->name);
}

static void read_slot(const struct reader *r, const struct jnode *x, int stage)
{
    static const char *const known[] = { "name", "op", "width", "kernel", "stride", "depth", "groups", "dilation", "pad", "order", "norm", "act",
                                         "connect", "from", "join", "when" };
    struct sf *f = r->f;
    if (f->n_slots == SF_MAX_SLOTS) {
        problem(r->p, x->line, "there are more than %d slots", SF_MAX_SLOTS);
        return;
    }
    if (member(r, x, "stage")) {
        problem(r->p, x->line, "a stage cannot stand in a stage, as here in '%s'", f->stage[stage].name);
        return;
    }
    int index = f->n_slots++;
    struct sf_slot *s = &f->slot[index];
    const struct jnode *name = member(r, x, "name"), *op = member(r, x, "op"), *when = member(r, x, "when");
    s->line = x->line;
    s->stage = stage;
    snprintf(s->name, sizeof s->name, "slot");
    if (x->kind != J_MAP || !name || name->kind != J_SCALAR || !op) {
        problem(r->p, x->line, "a slot must be {name: …, op: …, …}");
        return;
    }
    read_name(r, name, "slot", s->name);
    known_keys(r, x, known, sizeof known / sizeof *known, s->name);
    if (when) /* before its own variables: a slot cannot depend on itself */
        read_when(r, s->name, &s->when, when, stage);
    for (int k = 0; k < SF_KEY_COUNT; k++)
        s->var[k] = read_var(r, SF_OF_SLOT, index, k, member(r, x, key_names[k]));
    for (int i = 0; i < f->var[s->var[SF_OP]].n; i++)
        if (reads[f->var[s->var[SF_OP]].value[i]] & SF_B(SF_WIDTH) && !member(r, x, "width"))
            problem(r->p, x->line, "'%s.width' is missing: %s needs it", s->name, op_names[f->var[s->var[SF_OP]].value[i]]);
    check_dense(r, index);
}

static bool has_slots(const struct reader *r, const struct jnode *slots, const char *of)
{
    if (slots->kind != J_LIST)
        problem(r->p, slots->line, "'slots' of %.20s must be a list", of);
    else if (!slots->first)
        problem(r->p, slots->line, "'slots' of %.20s is an empty list", of);
    return slots->first != 0 && slots->kind == J_LIST;
}

/* {stage: NAME, repeat: [1, 2], widen: 2, slots: […]} */
static void read_stage(const struct reader *r, const struct jnode *x)
{
    static const char *const known[] = { "stage", "repeat", "widen", "slots", "when" };
    struct sf *f = r->f;
    const struct jnode *name = member(r, x, "stage"), *slots = member(r, x, "slots"), *when = member(r, x, "when");
    if (f->n_stages == SF_MAX_STAGES) {
        problem(r->p, x->line, "there are more than %d stages", SF_MAX_STAGES);
        return;
    }
    if (name->kind != J_SCALAR || !slots) {
        problem(r->p, x->line, "a stage must be {stage: NAME, repeat: …, slots: […]}");
        return;
    }
    if (!has_slots(r, slots, name->text))
        return;
    int index = f->n_stages++;
    struct sf_stage *s = &f->stage[index];
    s->line = x->line;
    s->first = f->n_slots;
    read_name(r, name, "stage", s->name);
    known_keys(r, x, known, sizeof known / sizeof *known, s->name);
    if (when)
        read_when(r, s->name, &s->when, when, -1);
    for (int k = 0; k < SF_STAGE_COUNT; k++)
        s->var[k] = read_var(r, SF_OF_STAGE, index, k, member(r, x, stage_names[k]));
    for (int i = slots->first; i; i = r->t->node[i].next)
        read_slot(r, &r->t->node[i], index);
    s->end = f->n_slots;
}

/* Is it certain that this variable is read, and that its values are as many networks? */
static bool always_open(const struct sf *f, const struct sf_var *v)
{
    if (v->of == SF_OF_SPACE) {
        bool read = v->key == SF_HEAD || v->referred;
        for (int i = 0; i < f->n_slots && !read; i++) {
            const struct sf_slot *s = &f->slot[i];
            const struct sf_var *op = &f->var[s->var[SF_OP]];
            enum sf_key own = v->key == SF_NORM ? SF_OWN_NORM : SF_OWN_ACT;
            read = !s->when.n && (s->stage < 0 || !f->stage[s->stage].when.n) && op->n == 1 && (reads[op->value[0]] & SF_B(own)) &&
                   f->var[s->var[own]].value[0] == SF_INHERIT;
        }
        return v->n > 1 && read;
    }
    if (v->n < 2 || v->of == SF_OF_STAGE)
        return false;
    const struct sf_slot *s = &f->slot[v->owner];
    const struct sf_var *op = &f->var[s->var[SF_OP]];
    if (s->when.n || (s->stage >= 0 && f->stage[s->stage].when.n))
        return false;
    return v->key == SF_OP || (op->n == 1 && (reads[op->value[0]] & SF_B(v->key)) && v->key != SF_FROM && v->key != SF_JOIN && v->key != SF_PAD &&
                               v->key != SF_DILATION);
}

static size_t longest_of(const struct sf *f, const struct sf_var *v)
{
    size_t most = 0;
    for (int i = 0; i < v->n; i++) {
        const char *w = sf_word(f, v, v->value[i]);
        size_t n = w ? strlen(w) : (size_t)snprintf(NULL, 0, "%d", v->value[i]);
        most = n > most ? n : most;
    }
    return v->n > 1 ? strlen(v->name) + 2 + most : 0; /* with '=' and ' ' */
}

/* The longest text of a slot: of its operations the one that reads most. */
static size_t longest_slot(const struct sf *f, const struct sf_slot *s)
{
    const struct sf_var *op = &f->var[s->var[SF_OP]];
    size_t most = 0;
    for (int i = 0; i < op->n; i++) {
        size_t n = 0;
        for (int k = SF_OP + 1; k < SF_KEY_COUNT; k++)
            n += reads[op->value[i]] & SF_B(k) ? longest_of(f, &f->var[s->var[k]]) : 0;
        most = n > most ? n : most;
    }
    return most + longest_of(f, op);
}

/* Choices that no setting of others switches off, and texts that fit. */
static void check_whole(const struct reader *r)
{
    const struct sf *f = r->f;
    size_t longest = 0;
    bool open = false;
    for (int i = 0; i < f->n_vars; i++) {
        open |= always_open(f, &f->var[i]);
        longest += f->var[i].of == SF_OF_SLOT ? 0 : longest_of(f, &f->var[i]);
    }
    for (int i = 0; i < f->n_slots; i++)
        longest += longest_slot(f, &f->slot[i]);
    if (!open)
        problem(r->p, 0, "nothing to choose: some key that is always read must have several values");
    if (longest >= ARCH_TEXT_MAX)
        problem(r->p, 0, "too many choices: an architecture's text could have %zu characters, at most %d", longest, ARCH_TEXT_MAX - 1);
}

/* One line, whatever lines and tabs the text had: it stands in tables. Other control characters a terminal might obey. */
static void read_about(const struct reader *r, const struct jnode *x)
{
    struct sf *f = r->f;
    size_t n = 0;
    if (x && x->kind != J_SCALAR) {
        problem(r->p, x->line, "'about' must be a line of text, not %s", found(x));
        return;
    }
    for (const unsigned char *p = (const unsigned char *)(x ? x->text : "a space from a file"); *p; p++) {
        bool blank = strchr(" \t\r\n", *p), above = *p == 0xC2 && p[1] >= 0x80 && p[1] < 0xA0; /* U+0080 to U+009F */
        if (!blank && (*p < ' ' || *p == 0x7F || above)) {
            problem(r->p, x->line, "'about' has a control character");
            return;
        }
        if (n < sizeof f->about - 1 && !(blank && (n == 0 || f->about[n - 1] == ' ')))
            f->about[n++] = blank ? ' ' : (char)*p;
    }
    f->about[n - (n && f->about[n - 1] == ' ')] = 0;
    utf8_clean(f->about); /* it may have been cut */
}

static void read_space(const struct reader *r)
{
    static const char *const known[] = { "name", "about", "norm", "act", "head", "slots" };
    const struct jnode *root = &r->t->node[0], *slots = member(r, root, "slots"), *name = member(r, root, "name");
    struct sf *f = r->f;
    if (root->kind != J_MAP || !name || name->kind != J_SCALAR || !slots) {
        problem(r->p, root->line, "a space has a 'name' and a list of 'slots'");
        return;
    }
    if (!has_slots(r, slots, "the space"))
        return;
    known_keys(r, root, known, sizeof known / sizeof *known, "a space");
    size_t n = strlen(name->text);
    if (!n || n >= sizeof f->name || !isalnum((unsigned char)*name->text) || strspn(name->text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != n ||
        space_find(name->text) || space_is_path(name->text))
        problem(r->p, name->line, "'name' must be 1 to %d of letters, digits, '.', '_', '-', a letter or digit first; no built-in space, no .yaml",
                SPACE_FILE_NAME);
    snprintf(f->name, sizeof f->name, "%s", name->text);
    read_about(r, member(r, root, "about"));
    for (int k = 0; k < SF_HEAD; k++)
        f->top[k] = read_var(r, SF_OF_SPACE, 0, k, member(r, root, top_names[k]));
    for (int i = slots->first; i; i = r->t->node[i].next)
        if (member(r, &r->t->node[i], "stage"))
            read_stage(r, &r->t->node[i]);
        else
            read_slot(r, &r->t->node[i], -1);
    f->top[SF_HEAD] = read_var(r, SF_OF_SPACE, 0, SF_HEAD, member(r, root, top_names[SF_HEAD]));
    if (r->p->n == 0)
        check_whole(r);
}

int space_file_parse(const char *yaml, size_t len, const char *file, struct space **out, struct errbuf *e)
{
    struct jtree    t;
    struct problems p = { .file = file };
    struct sf_arch  first = { .pick = { 0 } };
    struct net      n;
    *out = NULL;
    if (len > SPACE_FILE_MAX)
        return err_set(e, ERR_INPUT, "%s: a space file has at most %d bytes", file, SPACE_FILE_MAX);
    struct sf *f = calloc(1, sizeof *f);
    int rc = f ? jtree_from_yaml(&t, yaml, len, file, "space", e) : err_set(e, ERR_NOMEM, "a space");
    if (rc < 0) {
        free(f);
        return rc;
    }
    hash_bytes(yaml, len, f->hash);
    read_space(&(struct reader){ f, &t, &p });
    jtree_fini(&t);
    rc = problems_result(&p, e);
    if (rc == 0) {
        sf_attach(f);
        sf_settle(f, &first);
        if ((rc = sf_build(f, &first, &(struct arch_frame){ .c = 1, .h = 28, .w = 28, .n_classes = 10 }, &n, e)) < 0)
            err_wrap(e, rc, "%s: the architecture of all first values, at 1x28x28", file);
        else
            net_fini(&n);
    }
    if (rc < 0)
        free(f);
    else
        *out = &f->space;
    return rc;
}

void space_file_free(struct space *s)
{
    if (s)
        free((void *)(uintptr_t)s->ctx);
}
