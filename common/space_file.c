/* space_file.c - architectures of a space from a file: what is live, text, random draws, mutation, crossing, neighbours. One list of
 * variables serves all of them; what a variable means is the builder's matter.
 *
 * Liveness goes forward once: conditions look back. Keys of the whole space and of a stage stand before those who read them; they are
 * judged at the end, unless a condition names them: then they are live where their owner is there, or a circle could close. */
#include "common/space_file_int.h"
#include "common/suggest.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what is live ---- */

static bool holds(const struct sf_arch *a, const struct sf_cond *c)
{
    for (int i = 0; i < c->n; i++)
        if (!a->live[c->v[i].var] || !(c->v[i].allowed & 1u << a->pick[c->v[i].var]))
            return false;
    return true;
}

/* The nearest slot from `slot` upwards that is there, as a value of from. */
static int nearest(const struct sf_arch *a, int slot)
{
    while (slot >= 0 && !a->there[slot])
        slot--;
    return slot >= 0 ? SFFROM_SLOT + slot : SFFROM_INPUT;
}

/* What joins the slot's input if `from` has this value. Its own input, joined with itself, is nothing. */
static int source_of(const struct sf *f, const struct sf_arch *a, int slot, int value)
{
    if (value == SFFROM_NONE)
        return SFFROM_NONE;
    int source = value == SFFROM_INPUT ? SFFROM_INPUT : nearest(a, value - SFFROM_SLOT), before = nearest(a, slot - 1);
    int stage = f->slot[slot].stage;
    bool first = stage >= 0 && before < SFFROM_SLOT + f->stage[stage].first; /* of a stage: later repeats begin elsewhere */
    return source == before && (!first || sf_repeat(f, a, slot) == 1) ? SFFROM_NONE : source;
}

/* Of the values with one meaning the first stands for all; where all have one, there is no choice. */
static void settle_source(const struct sf *f, struct sf_arch *a, int slot)
{
    int var = f->slot[slot].var[SF_FROM];
    const struct sf_var *v = &f->var[var];
    int source = source_of(f, a, slot, v->value[a->pick[var]]);
    bool choice = false;
    for (int k = v->n - 1; k >= 0; k--) {
        int other = source_of(f, a, slot, v->value[k]);
        choice |= other != source;
        if (other == source)
            a->pick[var] = (short)k;
    }
    a->live[var] = choice || v->n == 1;
    a->source[slot] = (short)source;
}

static void settle_slot(const struct sf *f, struct sf_arch *a, int slot, bool on)
{
    const struct sf_slot *s = &f->slot[slot];
    a->live[s->var[SF_OP]] = on;
    if (!on)
        a->pick[s->var[SF_OP]] = 0;
    int op = sf_key(f, a, slot, SF_OP);
    a->there[slot] = on && op != SFOP_NONE;
    a->source[slot] = SFFROM_NONE;
    for (int k = SF_OP + 1; k < SF_KEY_COUNT; k++) {
        int var = s->var[k];
        bool point = (k == SF_DILATION || k == SF_PAD) && sf_key(f, a, slot, SF_KERNEL) == 1; /* nothing lies around a 1x1 kernel */
        a->live[var] = a->there[slot] && (sf_reads(op) & SF_B(k)) && !point && (k != SF_JOIN || a->source[slot] != SFFROM_NONE);
        if (!a->live[var])
            a->pick[var] = 0;
        else if (k == SF_FROM)
            settle_source(f, a, slot);
    }
}

/* Is there a slot of these that reads `key` (SF_OP: that is there at all), and does not state it itself? */
static bool anyone(const struct sf *f, const struct sf_arch *a, int first, int end, enum sf_key key)
{
    for (int i = first; i < end; i++) {
        bool own = (key == SF_OWN_NORM || key == SF_OWN_ACT) && sf_key(f, a, i, key) != SF_INHERIT;
        if (a->there[i] && !own && (key == SF_OP || (sf_reads(sf_key(f, a, i, SF_OP)) & SF_B(key))))
            return true;
    }
    return false;
}

static void settle_late(const struct sf *f, struct sf_arch *a, int var, bool on, bool read)
{
    a->live[var] = on && (read || f->var[var].referred);
    if (!a->live[var])
        a->pick[var] = 0;
}

void sf_settle(const struct sf *f, struct sf_arch *a)
{
    bool on[SF_MAX_STAGES] = { false };
    for (int k = 0; k < SF_TOP_COUNT; k++)
        a->live[f->top[k]] = true;
    for (int i = 0; i < f->n_slots; i++) {
        int st = f->slot[i].stage;
        if (st >= 0 && f->stage[st].first == i) {
            on[st] = holds(a, &f->stage[st].when);
            for (int k = 0; k < SF_STAGE_COUNT; k++)
                settle_late(f, a, f->stage[st].var[k], on[st], true);
        }
        settle_slot(f, a, i, (st < 0 || on[st]) && holds(a, &f->slot[i].when));
    }
    for (int st = 0; st < f->n_stages; st++) {
        const struct sf_stage *s = &f->stage[st];
        settle_late(f, a, s->var[SF_REPEAT], on[st], anyone(f, a, s->first, s->end, SF_OP));
        settle_late(f, a, s->var[SF_WIDEN], on[st], sf_get(f, a, s->var[SF_REPEAT]) > 1 && anyone(f, a, s->first, s->end, SF_WIDTH));
    }
    settle_late(f, a, f->top[SF_NORM], true, anyone(f, a, 0, f->n_slots, SF_OWN_NORM));
    settle_late(f, a, f->top[SF_ACT], true, anyone(f, a, 0, f->n_slots, SF_OWN_ACT));
}

static bool open_choice(const struct sf *f, const struct sf_arch *a, int var)
{
    return f->var[var].n > 1 && a->live[var];
}

/* ---- text ---- */

static size_t print_value(const struct sf *f, const struct sf_var *v, int i, char *buf, size_t cap)
{
    const char *word = sf_word(f, v, v->value[i]);
    return (size_t)(word ? snprintf(buf, cap, "%s", word) : snprintf(buf, cap, "%d", v->value[i]));
}

static void print(const struct sf *f, const struct sf_arch *a, char *text)
{
    size_t n = 0;
    text[0] = 0;
    for (int i = 0; i < f->n_vars; i++)
        if (open_choice(f, a, i)) {
            n += (size_t)snprintf(text + n, ARCH_TEXT_MAX - n, "%s%s=", n ? " " : "", f->var[i].name);
            n += print_value(f, &f->var[i], a->pick[i], text + n, ARCH_TEXT_MAX - n);
        }
    assert(n < ARCH_TEXT_MAX); /* the parser adds up the longest texts */
}

/* One "body.width=16". */
static int read_choice(const struct sf *f, const char *word, struct sf_arch *a, bool *given, struct errbuf *e)
{
    const char *eq = strchr(word, '='), *known[SF_MAX_VARS];
    char        name[2 * SF_NAME_LEN + 2], near[96], value[24];
    int         n = 0;
    snprintf(name, sizeof name, "%.*s", (int)(eq ? eq - word : 30), word);
    for (int i = 0; i < f->n_vars && eq; i++) {
        const struct sf_var *v = &f->var[i];
        if (v->n > 1)
            known[n++] = v->name;
        if (strcmp(v->name, name) != 0 || v->n < 2)
            continue;
        if (given[i])
            return err_set(e, ERR_INPUT, "'%s' is chosen twice", name);
        given[i] = true;
        for (a->pick[i] = 0; a->pick[i] < v->n; a->pick[i]++) {
            print_value(f, v, a->pick[i], value, sizeof value);
            if (strcmp(value, eq + 1) == 0)
                return 0;
        }
        return err_set(e, ERR_INPUT, "'%.60s': the space has no such value of '%s'", word, name);
    }
    return err_set(e, ERR_INPUT, "'%.60s' is no choice of this space, such as %s=…%s", word, n ? known[0] : "slot.key",
                   suggest_text(near, sizeof near, name, known, n));
}

int sf_read(const struct sf *f, const char *text, struct sf_arch *a, struct errbuf *e)
{
    char copy[ARCH_TEXT_MAX], *save = NULL;
    bool given[SF_MAX_VARS] = { false };
    *a = (struct sf_arch){ .pick = { 0 } };
    if (strlen(text) >= sizeof copy)
        return err_set(e, ERR_INPUT, "an architecture has at most %zu characters", sizeof copy - 1);
    strcpy(copy, text);
    for (char *w = strtok_r(copy, " \t\r\n", &save); w; w = strtok_r(NULL, " \t\r\n", &save)) {
        int rc = read_choice(f, w, a, given, e);
        if (rc < 0)
            return rc;
    }
    sf_settle(f, a);
    for (int i = 0; i < f->n_vars; i++)
        if (open_choice(f, a, i) && !given[i])
            return err_set(e, ERR_INPUT, "'%s' is not chosen", f->var[i].name);
    return 0;
}

static int canon(const struct space *s, const char *in, char *text, struct errbuf *e)
{
    struct sf_arch a;
    int rc = sf_read(s->ctx, in, &a, e);
    if (rc == 0)
        print(s->ctx, &a, text);
    return rc;
}

/* ---- proposals ---- */

/* Choices that turn out not to be live are drawn too: they are independent of the others. */
static void random_arch(const struct space *s, struct rng *r, char *text)
{
    const struct sf *f = s->ctx;
    struct sf_arch a = { .pick = { 0 } };
    for (int i = 0; i < f->n_vars; i++)
        a.pick[i] = (short)(f->var[i].n > 1 ? rng_below(r, (uint32_t)f->var[i].n) : 0);
    sf_settle(f, &a);
    print(f, &a, text);
}

static struct sf_arch parent_of(const struct sf *f, const char *text)
{
    struct sf_arch a;
    int rc = sf_read(f, text, &a, NULL);
    assert(rc == 0); /* the contract: a parent is canonical */
    return a;
}

struct change { short var, pick; };
#define MAX_CHANGES (SF_MAX_VARS * (SF_MAX_VALUES - 1))

/* Another value of one live choice. */
static int list_changes(const struct sf *f, const struct sf_arch *a, struct change *c)
{
    int n = 0;
    for (int i = 0; i < f->n_vars; i++)
        for (int k = 0; k < f->var[i].n && open_choice(f, a, i); k++)
            if (k != a->pick[i])
                c[n++] = (struct change){ (short)i, (short)k };
    return n;
}

/* False where it is the same network again: two values of from may mean one. */
static bool child_of(const struct sf *f, const struct sf_arch *parent, const char *from, const struct change *c, char *text)
{
    struct sf_arch a = *parent;
    a.pick[c->var] = c->pick;
    sf_settle(f, &a);
    print(f, &a, text);
    return strcmp(text, from) != 0;
}

/* Changes are drawn without replacement until one gives another network; one does, as the parser sees to. */
static void mutate(const struct space *s, struct rng *r, const char *parent, char *text)
{
    const struct sf *f = s->ctx;
    struct change c[MAX_CHANGES];
    struct sf_arch a = parent_of(f, parent);
    for (int n = list_changes(f, &a, c); n > 0; n--) {
        uint32_t i = rng_below(r, (uint32_t)n);
        if (child_of(f, &a, parent, &c[i], text))
            return;
        c[i] = c[n - 1];
    }
    assert(false && "an architecture without a neighbour");
}

static int neighbours(const struct space *s, const char *parent, struct arch_list *out, struct errbuf *e)
{
    const struct sf *f = s->ctx;
    struct change c[MAX_CHANGES];
    struct sf_arch a = parent_of(f, parent);
    int rc = 0;
    for (int i = list_changes(f, &a, c) - 1; i >= 0 && rc == 0; i--) {
        char text[ARCH_TEXT_MAX];
        if (child_of(f, &a, parent, &c[i], text))
            rc = arch_list_add(out, text, e);
    }
    arch_list_sort(out);
    return rc;
}

/* What only one parent has comes from that one. */
static void crossover(const struct space *s, struct rng *r, const char *one, const char *other, char *text)
{
    const struct sf *f = s->ctx;
    struct sf_arch p[2] = { parent_of(f, one), parent_of(f, other) }, a = { .pick = { 0 } };
    for (int i = 0; i < f->n_vars; i++) {
        uint32_t side = rng_below(r, 2);
        a.pick[i] = p[p[0].live[i] == p[1].live[i] ? side : p[1].live[i]].pick[i];
    }
    sf_settle(f, &a);
    print(f, &a, text);
}

static int build(const struct space *s, const char *text, const struct arch_frame *frame, struct net *out, struct errbuf *e)
{
    struct sf_arch a;
    int rc = sf_read(s->ctx, text, &a, e);
    return rc < 0 ? rc : sf_build(s->ctx, &a, frame, out, e);
}

void sf_attach(struct sf *f)
{
    snprintf(f->id, sizeof f->id, "%s@%.*s", f->name, SPACE_FILE_ID_HASH, f->hash);
    f->space = (struct space){ .name = f->id, .hash = f->hash, .about = f->about, .size = 1, .ctx = f, .random = random_arch, .mutate = mutate,
                               .crossover = crossover, .neighbours = neighbours, .canon = canon, .build = build };
    for (int i = 0; i < f->n_vars; i++)
        f->space.size *= f->var[i].n;
}

const char *space_file_name(const struct space *s)
{
    return ((const struct sf *)s->ctx)->name;
}
