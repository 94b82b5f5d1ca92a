#include "common/zero_cost.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

#define ROW(e, name, passes, about) [e] = { name, passes, about },
const struct zero_cost_row zero_cost_table[ZC_COUNT] = { ZERO_COST_LIST(ROW) };
#undef ROW

int zero_cost_from(const char *name)
{
    for (int i = 0; i < ZC_COUNT; i++)
        if (strcmp(name, zero_cost_table[i].name) == 0)
            return i;
    return -1;
}

void zero_cost_set(struct zero_cost_scores *z, int i, double v)
{
    const uint32_t bit = 1u << i;
    z->known = isfinite(v) ? z->known | bit : z->known & ~bit;
    z->value[i] = isfinite(v) ? v : 0;
}

struct json_t *zero_cost_json(const struct zero_cost_scores *z)
{
    json_t *d = json_object();
    for (int i = 0; d && i < ZC_COUNT; i++)
        if (z->known >> i & 1)
            json_object_set_new(d, zero_cost_table[i].name, json_real(z->value[i]));
    return d;
}
