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
static const struct { int min, max; const char *def; } ranges[SF_KEY_COUNT] = { SF_KEYS(SF_RANGE) };
#undef SF_RANGE
#define SF_WIDE(id, name, wide) wide,
static const bool wide[SFOP_COUNT] = { SF_OPS(SF_WIDE) };
#undef SF_WIDE
static const char *const top_names[SF_TOP_COUNT] = { "norm", "act", "head" };
static const char *const norm_names[SFNORM_COUNT] = { "bn", "mbn", "wn", "none" };
static const char *const act_names[SFACT_COUNT] = { "relu", "lrelu", "tanh" };
static const char *const head_names[SFHEAD_COUNT] = { "gap", "flat" };
static const char *const connect_names[SFCON_COUNT] = { "none", "add", "concat" };

const char *const *sf_words(int slot, int key, int *n)
{
    static const struct { const char *const *words; int n; } top[SF_TOP_COUNT] = { { norm_names, SFNORM_COUNT }, { act_names, SFACT_COUNT },
                                                                                   { head_names, SFHEAD_COUNT } };
    if (slot < 0) {
        *n = top[key].n;
        return top[key].words;
    }
    *n = key == SF_OP ? SFOP_COUNT : key == SF_CONNECT ? SFCON_COUNT : 0;
    return key == SF_OP ? op_names : key == SF_CONNECT ? connect_names : NULL;
}

const char *sf_word(const struct sf_var *v, int value)
{
    int n;
    const char *const *words = sf_words(v->slot, v->key, &n);
    return words ? words[value] : NULL;
}

bool sf_wide(int op)
{
    return wide[op];
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

/* One value of a variable; -1 after a problem. */
static int read_value(const struct reader *r, const struct sf_var *v, const struct jnode *x)
{
    int n, min = v->slot < 0 ? 0 : ranges[v->key].min, max = v->slot < 0 ? 0 : ranges[v->key].max;
    const char *const *words = sf_words(v->slot, v->key, &n);
    char near[96], *end, list[96] = "";
    if (words) {
        const char *text = x->kind == J_SCALAR ? x->text : "several";
        for (int i = 0; i < n; i++) {
            if (strcmp(words[i], text) == 0)
                return i;
            snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i ? ", " : "", words[i]);
        }
        problem(r->p, x->line, "'%s' must be of %s, not '%.20s'%s", v->name, list, text, suggest_text(near, sizeof near, text, words, n));
        return -1;
    }
    long value = x->kind == J_SCALAR && x->plain && isdigit((unsigned char)*x->text) ? strtol(x->text, &end, 10) : -1;
    if (value < min || value > max || *end || (v->key == SF_KERNEL && value % 2 == 0)) {
        problem(r->p, x->line, "'%s' must be %s from %d to %d", v->name, v->key == SF_KERNEL ? "odd numbers" : "numbers", min, max);
        return -1;
    }
    return (int)value;
}

/* "body.width", or "norm" of the whole. */
static void name_var(const struct sf *f, struct sf_var *v)
{
    char slot[SF_NAME_LEN + 1] = "";
    if (v->slot >= 0)
        memcpy(slot, f->slot[v->slot].name, sizeof slot);
    snprintf(v->name, sizeof v->name, "%s%s%s", slot, *slot ? "." : "", v->slot < 0 ? top_names[v->key] : key_names[v->key]);
}

/* A variable from a value or a list of values; `x` NULL: the default. */
static int read_var(const struct reader *r, int slot, int key, const struct jnode *x, int line)
{
    struct sf *f = r->f;
    struct sf_var *v = &f->var[f->n_vars];
    struct jnode plain = { .kind = J_SCALAR, .plain = true, .line = line };
    v->slot = slot;
    v->key = key;
    name_var(f, v);
    if (!x && slot >= 0 && key == SF_WIDTH) {
        v->n = 1; /* 0: the slot states none; needs_width looks whether it has to */
        return f->n_vars++;
    }
    if (!x) {
        int n;
        plain.text = (char *)(uintptr_t)(slot < 0 ? sf_words(slot, key, &n)[0] : ranges[key].def);
        x = &plain;
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
    return f->n_vars++;
}

/* when: {body.op: [sep, neck]}: variables of the slots before. */
static void read_when(const struct reader *r, struct sf_slot *s, const struct jnode *when)
{
    struct sf *f = r->f;
    if (when->kind != J_MAP)
        problem(r->p, when->line, "'when' of %s must be {slot.key: value, …}", s->name);
    for (int i = when->kind == J_MAP ? when->first : 0; i; i = r->t->node[i].next) {
        const struct jnode *m = &r->t->node[i];
        const char *known[SF_MAX_VARS];
        char near[96];
        int var = -1;
        for (int k = 0; k < f->n_vars; k++) {
            known[k] = f->var[k].name;
            var = strcmp(m->key, known[k]) == 0 ? k : var;
        }
        if (var < 0 || s->n_when == SF_MAX_WHEN) {
            problem(r->p, m->line, var < 0 ? "'when' of %s: no slot above has '%.30s'%s" : "'when' of %s has more than 4 conditions", s->name, m->key,
                    var < 0 ? suggest_text(near, sizeof near, m->key, known, f->n_vars) : "");
            continue;
        }
        struct sf_when *w = &s->when[s->n_when++];
        w->var = var;
        for (int k = m->kind == J_LIST ? m->first : 1; k; k = m->kind == J_LIST ? r->t->node[k].next : 0) {
            const struct jnode *item = m->kind == J_LIST ? &r->t->node[k] : m;
            int value = read_value(r, &f->var[var], item), at = -1;
            for (int j = 0; j < f->var[var].n; j++)
                at = f->var[var].value[j] == value ? j : at;
            if (value >= 0 && at < 0)
                problem(r->p, item->line, "'when' of %s: '%s' is never %.20s", s->name, m->key, item->text);
            w->allowed |= at >= 0 ? 1u << at : 0;
        }
    }
}

static void read_slot(const struct reader *r, const struct jnode *x)
{
    static const char *const known[] = { "name", "op", "width", "kernel", "stride", "depth", "connect", "when" };
    struct sf *f = r->f;
    if (f->n_slots == SF_MAX_SLOTS) {
        problem(r->p, x->line, "there are more than %d slots", SF_MAX_SLOTS);
        return;
    }
    int index = f->n_slots++;
    struct sf_slot *s = &f->slot[index];
    const struct jnode *name = member(r, x, "name"), *op = member(r, x, "op"), *when = member(r, x, "when");
    s->line = x->line;
    snprintf(s->name, sizeof s->name, "slot");
    if (x->kind != J_MAP || !name || name->kind != J_SCALAR || !op) {
        problem(r->p, x->line, "a slot must be {name: …, op: …, …}");
        return;
    }
    size_t n = strlen(name->text);
    if (!n || n > SF_NAME_LEN || strspn(name->text, "abcdefghijklmnopqrstuvwxyz_") != n || strcmp(name->text, "head") == 0 ||
        strcmp(name->text, "input") == 0)
        problem(r->p, name->line, "a slot's name is 1 to %d of a-z and _, and neither head nor input", SF_NAME_LEN);
    snprintf(s->name, sizeof s->name, "%s", name->text);
    for (int i = 0; i < index; i++)
        if (strcmp(f->slot[i].name, s->name) == 0)
            problem(r->p, name->line, "there is a slot '%s' already (line %d)", s->name, f->slot[i].line);
    known_keys(r, x, known, sizeof known / sizeof *known, s->name);
    if (when) /* before its own variables: a slot cannot depend on itself */
        read_when(r, s, when);
    for (int k = 0; k < SF_KEY_COUNT; k++)
        s->var[k] = read_var(r, index, k, member(r, x, key_names[k]), x->line);
    for (int i = 0; i < f->var[s->var[SF_OP]].n; i++)
        if (wide[f->var[s->var[SF_OP]].value[i]] && !member(r, x, "width"))
            problem(r->p, x->line, "'%s.width' is missing: %s needs it", s->name, op_names[f->var[s->var[SF_OP]].value[i]]);
}

/* Choices that no setting of others switches off, and texts that fit. */
static void check_whole(const struct reader *r)
{
    struct sf *f = r->f;
    size_t longest = 0;
    bool open = false;
    for (int i = 0; i < f->n_vars; i++) {
        const struct sf_var *v = &f->var[i];
        bool always = v->slot < 0 || (v->key == SF_OP && !f->slot[v->slot].n_when);
        open |= v->n > 1 && always;
        for (int k = 0; k < v->n && v->slot >= 0 && v->n > 1 && v->key != SF_OP; k++) /* always there: an operation that is always there and reads it */
            if (!f->slot[v->slot].n_when && f->var[f->slot[v->slot].var[SF_OP]].n == 1)
                open |= f->var[f->slot[v->slot].var[SF_OP]].value[0] != SFOP_NONE &&
                        (v->key != SF_WIDTH || wide[f->var[f->slot[v->slot].var[SF_OP]].value[0]]);
        longest += v->n > 1 ? strlen(v->name) + 8 : 0; /* '=', ' ', and a value of at most six characters */
    }
    if (!open)
        problem(r->p, 0, "nothing to choose: some key that is always read must have several values");
    if (longest >= ARCH_TEXT_MAX)
        problem(r->p, 0, "too many choices: an architecture's text would have %zu characters, at most %d", longest, ARCH_TEXT_MAX - 1);
}

static void read_space(const struct reader *r)
{
    static const char *const known[] = { "name", "about", "norm", "act", "head", "slots" };
    const struct jnode *root = &r->t->node[0], *slots = member(r, root, "slots"), *name = member(r, root, "name"),
                       *about = member(r, root, "about");
    struct sf *f = r->f;
    if (root->kind != J_MAP || !name || name->kind != J_SCALAR || !slots || slots->kind != J_LIST || !slots->first) {
        problem(r->p, root->line, "a space has a 'name' and a list of 'slots'");
        return;
    }
    known_keys(r, root, known, sizeof known / sizeof *known, "a space");
    size_t n = strlen(name->text);
    if (!n || n >= sizeof f->name || !isalnum((unsigned char)*name->text) || strspn(name->text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != n ||
        space_find(name->text) || space_is_path(name->text))
        problem(r->p, name->line, "'name' must be 1 to %d letters, digits, '.', '_', '-', begin with a letter or digit, and be neither a built-in"
                " space nor end in .yaml", SPACE_FILE_NAME);
    snprintf(f->name, sizeof f->name, "%s", name->text);
    snprintf(f->about, sizeof f->about, "%s", about && about->kind == J_SCALAR ? about->text : "a space from a file");
    for (int k = 0; k < SF_HEAD; k++)
        f->top[k] = read_var(r, -1, k, member(r, root, top_names[k]), root->line);
    for (int i = slots->first; i; i = r->t->node[i].next)
        read_slot(r, &r->t->node[i]);
    f->top[SF_HEAD] = read_var(r, -1, SF_HEAD, member(r, root, top_names[SF_HEAD]), root->line);
    check_whole(r);
}

int space_file_parse(const char *yaml, size_t len, const char *file, struct space **out, struct errbuf *e)
{
    struct jtree    t;
    struct problems p = { .file = file };
    struct sf_arch  first = { { 0 } };
    struct net      n;
    *out = NULL;
    if (len > SPACE_FILE_MAX)
        return err_set(e, ERR_INPUT, "%s: a space file has at most %d bytes", file, SPACE_FILE_MAX);
    struct sf *f = calloc(1, sizeof *f);
    int rc = f ? jtree_from_yaml(&t, yaml, len, file, e) : err_set(e, ERR_NOMEM, "a space");
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
