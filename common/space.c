#include "common/space.h"
#include "common/space_file.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct space *const table[] = { &space_chain, &space_nasbench201, &space_nasnet };
#define N_SPACES ((int)(sizeof table / sizeof *table))

const struct space *space_at(int i)
{
    return i >= 0 && i < N_SPACES ? table[i] : NULL;
}

const struct space *space_find(const char *name)
{
    for (int i = 0; i < N_SPACES; i++)
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    return strchr(name, '@') ? space_file_find(name) : NULL;
}

/* ---- building ---- */

int space_proxy_check(const struct space *s, const struct proxy *p, const char *section, struct errbuf *e)
{
    const struct { const char *key; int value, max; bool known; } row[] = {
        { "channels", p->channels, PROXY_MAX_CHANNELS, s->has_cells },
        { "cells", p->cells, PROXY_MAX_CELLS, s->has_cells },
        { "downsample", p->downsample, PROXY_MAX_DOWNSAMPLE, true },
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        if (row[i].value < 0 || row[i].value > row[i].max)
            return err_set(e, ERR_INPUT, "%s.%s must be from 0 to %d, not %d", section, row[i].key, row[i].max, row[i].value);
        if (row[i].value && !row[i].known)
            return err_set(e, ERR_INPUT, "%s.%s: networks of the space %s state their own", section, row[i].key, s->name);
    }
    return 0;
}

int space_build(const struct space *s, const char *text, int c, int h, int w, int n_classes, const struct proxy *proxy,
                struct net *out, struct errbuf *e)
{
    struct arch_frame f = { c, h, w, n_classes, proxy ? *proxy : (struct proxy){ 0 } };
    *out = (struct net){ 0 };
    int rc = space_proxy_check(s, &f.proxy, "proxy", e);
    if (rc == 0 && (rc = s->build(s, text, &f, out, e)) == 0)
        net_prune(out);
    return rc;
}

struct proxy space_proxy_from(const char *channels, const char *cells)
{
    return (struct proxy){ .channels = channels ? atoi(channels) : 0, .cells = cells ? atoi(cells) : 0 };
}

int space_input(struct net *n, const struct arch_frame *f, struct errbuf *e)
{
    int rc = net_init(n, f->c, f->h, f->w, e), k = f->proxy.downsample;
    if (rc < 0 || k <= 1)
        return rc < 0 ? rc : 0;
    return net_pool(n, NET_AVGPOOL, 0, k, k, 0, "input.pool", e);
}

/* ---- lists ---- */

int arch_list_add(struct arch_list *l, const char *text, struct errbuf *e)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        char **more = realloc(l->text, cap * sizeof *more);
        if (!more)
            return err_set(e, ERR_NOMEM, "a list of %zu architectures", l->n);
        l->text = more;
        l->cap = cap;
    }
    if (!(l->text[l->n] = strdup(text)))
        return err_set(e, ERR_NOMEM, "a list of %zu architectures", l->n);
    l->n++;
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

void arch_list_sort(struct arch_list *l)
{
    size_t n = 0;
    if (l->n)
        qsort(l->text, l->n, sizeof *l->text, by_text);
    for (size_t i = 0; i < l->n; i++) {
        if (n && strcmp(l->text[n - 1], l->text[i]) == 0)
            free(l->text[i]);
        else
            l->text[n++] = l->text[i];
    }
    l->n = n;
}

void arch_list_fini(struct arch_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->text[i]);
    free(l->text);
    *l = (struct arch_list){ 0 };
}

void arch_hash(const char *space, const char *text, char hex[ARCH_HASH_LEN + 1])
{
    unsigned char raw[ARCH_HASH_LEN / 2];
    crypto_generichash_state st;
    crypto_generichash_init(&st, NULL, 0, sizeof raw);
    crypto_generichash_update(&st, (const unsigned char *)space, strlen(space));
    crypto_generichash_update(&st, (const unsigned char *)"\n", 1);
    crypto_generichash_update(&st, (const unsigned char *)text, strlen(text));
    crypto_generichash_final(&st, raw, sizeof raw);
    sodium_bin2hex(hex, ARCH_HASH_LEN + 1, raw, sizeof raw);
}
