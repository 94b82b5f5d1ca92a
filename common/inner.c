#include "common/inner.h"

#include "common/suggest.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static const char *const names[INNER_TYPE_COUNT] = {
    [INNER_SGD] = "sgd", [INNER_LARS] = "lars", [INNER_NESTEROV] = "nesterov", [INNER_RMSPROP] = "rmsprop", [INNER_ADAM] = "adam",
};

/* The constants, in the order of the JSON form: which field, bounds (least itself allowed or not), and who has a use for it. */
#define ALL ~0u
#define ONLY(t) (1u << (t))
struct constant { const char *name; size_t at; bool above; double most; unsigned used; };
#define AT(f) offsetof(struct inner_cfg, f)
static const struct constant constants[] = {
    { "eps", AT(eps), true, 1, ONLY(INNER_LARS) | ONLY(INNER_RMSPROP) | ONLY(INNER_ADAM) },
    { "scale_1d", AT(scale_1d), false, 100, ONLY(INNER_LARS) },
    { "beta2", AT(beta2), false, 0.9999999, ONLY(INNER_RMSPROP) | ONLY(INNER_ADAM) },
    { "weight_decay", AT(weight_decay), false, 1, ALL },
    { "clip", AT(clip), false, 1e9, ALL },
    { "label_smoothing", AT(label_smoothing), false, 0.9999999, ALL },
};
enum { N_CONSTANTS = sizeof constants / sizeof constants[0] };

static double *field(struct inner_cfg *c, int i) { return (double *)(void *)((char *)c + constants[i].at); }

struct inner_cfg inner_defaults(enum inner_type t)
{
    const bool adaptive = t == INNER_RMSPROP || t == INNER_ADAM;
    return (struct inner_cfg){ .type = t, .eps = adaptive ? 1e-5 : 1e-6, .scale_1d = 0.3, .beta2 = t == INNER_RMSPROP ? 0.99 : 0.999 };
}

struct inner_cfg inner_default(void) { return inner_defaults(INNER_SGD); }

const char *inner_name(enum inner_type t)
{
    return (unsigned)t < INNER_TYPE_COUNT ? names[t] : "?";
}

static int type_from(enum inner_type *t, const json_t *v, const char *where, struct errbuf *e)
{
    char near[96];
    if (!json_is_string(v))
        return err_set(e, ERR_INPUT, "%s: 'type' must be a string", where);
    for (int i = 0; i < INNER_TYPE_COUNT; i++)
        if (strcmp(names[i], json_string_value(v)) == 0) {
            *t = (enum inner_type)i;
            return 0;
        }
    return err_set(e, ERR_INPUT, "%s: unknown type '%.60s'%s", where, json_string_value(v),
                   suggest_text(near, sizeof near, json_string_value(v), names, INNER_TYPE_COUNT));
}

static int constant_from(struct inner_cfg *c, const char *key, const json_t *v, const char *where, struct errbuf *e)
{
    const char *known[N_CONSTANTS + 1] = { "type" };
    char near[96];
    for (int i = 0; i < N_CONSTANTS; i++) {
        const struct constant *k = &constants[i];
        known[i + 1] = k->name;
        if (strcmp(key, k->name) != 0)
            continue;
        double x = json_number_value(v);
        if (!json_is_number(v) || !(k->above ? x > 0 : x >= 0))
            return err_set(e, ERR_INPUT, "%s: '%s' must be a number %s 0", where, key, k->above ? "above" : "of at least");
        if (x > k->most)
            return err_set(e, ERR_INPUT, "%s: '%s' must be at most %.7g", where, key, k->most);
        *field(c, i) = x;
        return 0;
    }
    return err_set(e, ERR_INPUT, "%s: unknown key '%.60s'%s", where, key, suggest_text(near, sizeof near, key, known, N_CONSTANTS + 1));
}

int inner_from_json(struct inner_cfg *c, const json_t *j, const char *where, struct errbuf *e)
{
    *c = inner_default();
    if (!j)
        return 0;
    if (!json_is_object(j))
        return err_set(e, ERR_INPUT, "%s: must be an object such as {\"type\": \"sgd\"}", where);
    const json_t *type = json_object_get(j, "type");
    enum inner_type t = INNER_SGD;
    int rc = type ? type_from(&t, type, where, e) : 0;
    if (rc < 0)
        return rc;
    *c = inner_defaults(t);
    const char *key;
    json_t     *v;
    json_object_foreach((json_t *)j, key, v)
        if (strcmp(key, "type") != 0 && (rc = constant_from(c, key, v, where, e)) < 0)
            return rc;
    return 0;
}

json_t *inner_to_json(const struct inner_cfg *c)
{
    json_t *j = json_pack("{s:s}", "type", inner_name(c->type));
    struct inner_cfg copy = *c;
    for (int i = 0; j && i < N_CONSTANTS; i++)
        if ((constants[i].used & ONLY(c->type)) && json_object_set_new(j, constants[i].name, json_real(*field(&copy, i))) < 0) {
            json_decref(j);
            return NULL;
        }
    return j;
}
