/* curriculum_show.c - didact curriculum show: a curriculum as text, as JSON and drawn. */
#include "client/canvas.h"
#include "client/curriculum_draw.h"
#include "client/verbs.h"

#include <stdlib.h>

struct balance { /* of the classes */
    double *sum;    /* owned [K]: sum of the labels of all images */
    int    *images; /* owned [K]: images with their largest label there */
};

static int balance_init(struct balance *s, const struct curriculum *u, struct errbuf *e)
{
    s->sum = malloc((size_t)u->K * sizeof *s->sum);
    s->images = calloc((size_t)u->K, sizeof *s->images);
    if (!s->sum || !s->images)
        return err_set(e, ERR_NOMEM, "out of memory");
    curriculum_class_sums(u, 0, u->T, s->sum);
    for (int t = 0; t < u->T; t++)
        for (int b = 0; b < u->B; b++)
            s->images[curriculum_class(u, t, b)]++;
    return 0;
}

static void balance_fini(struct balance *s)
{
    free(s->sum);
    free(s->images);
}

/* ---- text ---- */

#define INDENT "             "

static void print_series(const char *name, const float *v, int n, int digits)
{
    int low = 0, high = 0;
    printf("%-12s ", name);
    for (int t = 0; t < n; t++) {
        printf("%s%.*g", t ? " " : "", digits, (double)v[t]);
        low = v[t] < v[low] ? t : low;
        high = v[t] > v[high] ? t : high;
    }
    printf("\n" INDENT "first %.*g, least %.*g (t = %d), most %.*g (t = %d), last %.*g\n", digits, (double)v[0], digits, (double)v[low], low, digits,
           (double)v[high], high, digits, (double)v[n - 1]);
}

static void print_balance(const struct balance *s, int n)
{
    int low = 0, high = 0;
    printf("class sums  ");
    for (int k = 0; k < n; k++) {
        printf(" %.4g", s->sum[k]);
        low = s->sum[k] < s->sum[low] ? k : low;
        high = s->sum[k] > s->sum[high] ? k : high;
    }
    printf("\n" INDENT "of the labels of all images; least %.4g (class %d), most %.4g (class %d)\nclass images", s->sum[low], low, s->sum[high], high);
    for (int k = 0; k < n; k++)
        printf(" %d", s->images[k]);
    printf("\n" INDENT "with their largest label there\n");
}

static void show_text(const char *name, const char *kind, const struct curriculum *u, const struct balance *s)
{
    printf("curriculum   %s\nhash         %s\nkind         %s\nbatches      %d of %d images, %d x %d x %d, %d classes\ninner        %s\n", name, u->hash,
           kind[0] ? kind : "-", u->T, u->B, u->c, u->h, u->w, u->K, inner_name(u->inner.type));
    print_series("lr", u->lr, u->T, 4);
    print_series("momentum", u->mu, u->T, 3);
    print_balance(s, u->K);
    printf("provenance   %s\n", u->provenance[0] ? u->provenance : "-");
}

/* ---- JSON ---- */

static json_t *floats(const float *v, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, json_real((double)v[i]));
    return list;
}

static void show_json(const char *name, const char *kind, const struct curriculum *u, const struct balance *s)
{
    json_error_t je;
    json_t *prov = json_loads(u->provenance, 0, &je), *sums = json_array(), *images = json_array();
    for (int k = 0; k < u->K; k++) {
        json_array_append_new(sums, json_real(s->sum[k]));
        json_array_append_new(images, json_integer(s->images[k]));
    }
    json_t *doc = json_pack("{s:s,s:s,s:s?,s:i,s:i,s:[iii],s:i,s:o,s:o,s:o,s:o,s:o,s:o}", "name", name, "hash", u->hash, "kind", kind[0] ? kind : NULL,
                            "steps", u->T, "batch", u->B, "image", u->c, u->h, u->w, "classes", u->K, "inner", inner_to_json(&u->inner), "lr",
                            floats(u->lr, u->T), "momentum", floats(u->mu, u->T), "class_sums", sums, "class_images", images, "provenance",
                            prov ? prov : json_null());
    print_json(stdout, doc);
    json_decref(doc);
}

/* ---- the verb ---- */

int verb_curriculum_show(struct cli *c)
{
    struct curriculum u = { 0 };
    struct balance s = { 0 };
    kind_str kind;
    name_str name;
    const char *path = cli_str(c, "output", NULL);
    int rc = path ? canvas_check(path, c->e) : 0;
    if (rc == 0)
        rc = curriculum_named(c, c->arg[0], name, &u);
    if (rc == 0)
        rc = balance_init(&s, &u, c->e);
    if (rc == 0 && path) /* before the text: what fails says nothing else on stdout */
        rc = curriculum_draw(&u, name, path, c->e);
    if (rc == 0) {
        curriculum_kind(&u, kind);
        (c->json ? show_json : show_text)(name, kind, &u, &s);
        if (path && !c->json)
            printf("%s\n", path);
    }
    balance_fini(&s);
    curriculum_fini(&u);
    return rc;
}
