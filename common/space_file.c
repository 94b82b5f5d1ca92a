/* space_file.c - architectures of a space from a file: text, random draws, mutation, crossing, neighbours. One list of variables serves
 * all of them; what a variable means is the builder's matter. */
#include "common/space_file_int.h"
#include "common/suggest.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool sf_slot_live(const struct sf *f, const struct sf_arch *a, int slot)
{
    const struct sf_slot *s = &f->slot[slot];
    for (int i = 0; i < s->n_when; i++)
        if (!sf_live(f, a, s->when[i].var) || !(s->when[i].allowed & 1u << a->pick[s->when[i].var]))
            return false;
    return true;
}

bool sf_live(const struct sf *f, const struct sf_arch *a, int var)
{
    const struct sf_var *v = &f->var[var];
    if (v->slot < 0)
        return true;
    if (!sf_slot_live(f, a, v->slot))
        return false;
    int op = sf_get(f, a, f->slot[v->slot].var[SF_OP]);
    return v->key == SF_OP || (op != SFOP_NONE && (v->key != SF_WIDTH || sf_wide(op)));
}

/* What is not live takes its first value: equal networks, equal picks. In the order of the file, for conditions look back. */
static void settle(const struct sf *f, struct sf_arch *a)
{
    for (int i = 0; i < f->n_vars; i++)
        if (!sf_live(f, a, i))
            a->pick[i] = 0;
}

static bool open_choice(const struct sf *f, const struct sf_arch *a, int var)
{
    return f->var[var].n > 1 && sf_live(f, a, var);
}

static size_t print_value(const struct sf_var *v, int i, char *buf, size_t cap)
{
    const char *word = sf_word(v, v->value[i]);
    return (size_t)(word ? snprintf(buf, cap, "%s", word) : snprintf(buf, cap, "%d", v->value[i]));
}

static void print(const struct sf *f, const struct sf_arch *a, char *text)
{
    size_t n = 0;
    text[0] = 0;
    for (int i = 0; i < f->n_vars; i++)
        if (open_choice(f, a, i)) {
            n += (size_t)snprintf(text + n, ARCH_TEXT_MAX - n, "%s%s=", n ? " " : "", f->var[i].name);
            n += print_value(&f->var[i], a->pick[i], text + n, ARCH_TEXT_MAX - n);
        }
    assert(n < ARCH_TEXT_MAX); /* the parser adds up the longest texts */
}

/* ---- reading ---- */

/* One "body.width=16". */
static int read_choice(const struct sf *f, const char *word, struct sf_arch *a, bool *given, struct errbuf *e)
{
    const char *eq = strchr(word, '='), *known[SF_MAX_VARS];
    char        name[2 * SF_NAME_LEN + 2], near[96], value[16];
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
            print_value(v, a->pick[i], value, sizeof value);
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
    *a = (struct sf_arch){ { 0 } };
    if (strlen(text) >= sizeof copy)
        return err_set(e, ERR_INPUT, "an architecture has at most %zu characters", sizeof copy - 1);
    strcpy(copy, text);
    for (char *w = strtok_r(copy, " \t\r\n", &save); w; w = strtok_r(NULL, " \t\r\n", &save)) {
        int rc = read_choice(f, w, a, given, e);
        if (rc < 0)
            return rc;
    }
    for (int i = 0; i < f->n_vars; i++)
        if (open_choice(f, a, i) && !given[i])
            return err_set(e, ERR_INPUT, "'%s' is not chosen", f->var[i].name);
    settle(f, a);
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

static void random_arch(const struct space *s, struct rng *r, char *text)
{
    const struct sf *f = s->ctx;
    struct sf_arch a = { { 0 } };
    for (int i = 0; i < f->n_vars; i++) /* conditions look back, so what comes before is settled */
        if (open_choice(f, &a, i))
            a.pick[i] = (int)rng_below(r, (uint32_t)f->var[i].n);
    print(f, &a, text);
}

static struct sf_arch parent_of(const struct sf *f, const char *text)
{
    struct sf_arch a;
    int rc = sf_read(f, text, &a, NULL);
    assert(rc == 0); /* the contract: a parent is canonical */
    return a;
}

struct change { int var, pick; };

/* Another value of one live choice. All differ: the text names every live choice. */
static int list_changes(const struct sf *f, const struct sf_arch *a, struct change *c)
{
    int n = 0;
    for (int i = 0; i < f->n_vars; i++)
        for (int k = 0; k < f->var[i].n && open_choice(f, a, i); k++)
            if (k != a->pick[i])
                c[n++] = (struct change){ i, k };
    return n;
}

static void child_of(const struct sf *f, const struct sf_arch *parent, const struct change *c, char *text)
{
    struct sf_arch a = *parent;
    a.pick[c->var] = c->pick;
    settle(f, &a);
    print(f, &a, text);
}

static void mutate(const struct space *s, struct rng *r, const char *parent, char *text)
{
    const struct sf *f = s->ctx;
    struct change c[SF_MAX_VARS * SF_MAX_VALUES];
    struct sf_arch a = parent_of(f, parent);
    int n = list_changes(f, &a, c);
    assert(n > 0); /* the parser sees to it that something is always open */
    child_of(f, &a, &c[rng_below(r, (uint32_t)n)], text);
}

static int neighbours(const struct space *s, const char *parent, struct arch_list *out, struct errbuf *e)
{
    const struct sf *f = s->ctx;
    struct change c[SF_MAX_VARS * SF_MAX_VALUES];
    struct sf_arch a = parent_of(f, parent);
    int rc = 0;
    for (int i = list_changes(f, &a, c) - 1; i >= 0 && rc == 0; i--) {
        char text[ARCH_TEXT_MAX];
        child_of(f, &a, &c[i], text);
        rc = arch_list_add(out, text, e);
    }
    arch_list_sort(out);
    return rc;
}

static void crossover(const struct space *s, struct rng *r, const char *one, const char *other, char *text)
{
    const struct sf *f = s->ctx;
    struct sf_arch p[2] = { parent_of(f, one), parent_of(f, other) }, a = { { 0 } };
    for (int i = 0; i < f->n_vars; i++)
        a.pick[i] = p[rng_below(r, 2)].pick[i];
    settle(f, &a);
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
