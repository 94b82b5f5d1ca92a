#include "worker/plan_print.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

enum { FORWARD, BACKWARD, DUAL_FORWARD, DUAL_BACKWARD, N_RULES };
static const char *const rules[N_RULES] = { "forward", "backward", "dual_forward", "dual_backward" };

static double mib(uint64_t bytes) { return (double)bytes / 1048576; }

/* ---- what is shown of an op ---- */

/* "direct", or "direct/narrow" where the way back takes another kernel. */
static void kernel_text(const struct eng_plan *p, const struct node *n, char *text, size_t cap)
{
    const struct op_call c = plan_call(p, n);
    const char *forth = p->k->way[n->op] ? p->k->way[n->op](&c, false) : p->k->name, *back = p->k->way[n->op] ? p->k->way[n->op](&c, true) : forth;
    snprintf(text, cap, strcmp(forth, back) == 0 || !(p->need & ENG_GRAD) ? "%s" : "%s/%s", forth, back);
}

/* What becomes of its value after the way forth. */
static const char *fate(const struct eng_plan *p, const struct node *n)
{
    const struct tensor *t = &p->tensor[p->tensor[n->out].root];
    return t->kept[VAL] ? "keep" : t->redo ? "recompute" : t->stays ? "hold" : "drop";
}

/* Bytes of the arena in use while node i goes forward, and back; the plain pass's where a plan has two. */
static uint64_t alive(const struct eng_plan *p, int i, bool back)
{
    return p->alive[back ? 2 * p->n_nodes - i : i] + p->scratch_bytes;
}

/* ---- operations ---- */

struct work { uint64_t train, tangent, tangent_kept, real, generator, total; };

static struct work work_of(const struct plan_doc *d, const struct unroll_view *v)
{
    const uint64_t T = (uint64_t)d->cfg->T, kept = (uint64_t)v->n_kept;
    struct work w = { .train = plan_pass_flops(v->step, FORWARD, false) + plan_pass_flops(v->step, BACKWARD, false) };
    if (v->real) {
        w.tangent = plan_pass_flops(v->step, DUAL_FORWARD, false) + plan_pass_flops(v->step, DUAL_BACKWARD, false);
        w.tangent_kept = v->keeper ? plan_pass_flops(v->keeper, DUAL_FORWARD, true) + plan_pass_flops(v->keeper, DUAL_BACKWARD, true) : 0;
        w.real = plan_pass_flops(v->real, FORWARD, false) + plan_pass_flops(v->real, BACKWARD, false);
    }
    if (d->generator)
        w.generator = 2 * plan_pass_flops(d->generator, FORWARD, false) + plan_pass_flops(d->generator, BACKWARD, false);
    w.total = T * (w.train + w.generator) + (T - kept) * w.tangent + kept * w.tangent_kept + (uint64_t)d->n_meta * w.real;
    return w;
}

/* ---- text ---- */

static void print_plan(const char *name, const struct eng_plan *p, FILE *to)
{
    fprintf(to, "\n%s: batch %d, arena %.2f MiB (%.2f of it scratch)", name, p->batch, mib(p->bytes), mib(p->scratch_bytes));
    if (p->kept_bytes)
        fprintf(to, ", keeps %.2f MiB a step", mib(p->kept_bytes));
    fprintf(to, "\n  %-10s %-26s %-13s %-14s %-9s %10s %10s %10s %10s\n", "op", "layer", "output", "kernel", "value", "MiB forth", "MiB back",
            "MFLOP", "back");
    for (int i = 0; i < p->n_nodes; i++) {
        const struct node *n = &p->node[i];
        const struct tensor *y = &p->tensor[n->out];
        char shape[48], kernel[32];
        kernel_text(p, n, kernel, sizeof kernel);
        snprintf(shape, sizeof shape, y->s.flat || !y->batched ? "%dx%d" : "%dx%dx%d", y->batched ? y->s.h * (y->s.flat ? p->batch : 1) : y->s.h,
                 y->batched && !y->s.flat ? y->s.w : y->s.c, y->s.c);
        fprintf(to, "  %-10s %-26s %-13s %-14s %-9s %10.2f", op_traits[n->op].name, p->net.node[n->net_node].path, shape, kernel, fate(p, n),
                mib(alive(p, i, false)));
        if (p->need & ENG_GRAD)
            fprintf(to, " %10.2f", mib(alive(p, i, true)));
        else
            fprintf(to, " %10s", "");
        fprintf(to, " %10.1f %10.1f\n", 1e-6 * (double)plan_flops(p, i, FORWARD, false),
                p->need & ENG_GRAD ? 1e-6 * (double)plan_flops(p, i, BACKWARD, false) : 0);
    }
    for (int i = 0; i < p->n_redo; i++)
        fprintf(to, "  before %s goes back: %s again\n", p->net.node[p->node[p->redo[i].before].net_node].path,
                p->net.node[p->node[p->redo[i].node].net_node].path);
}

void plan_print(const struct plan_doc *d, FILE *to)
{
    const struct unroll_cfg *c = d->cfg;
    const struct unroll_view v = unroll_view(d->unroll);
    const struct work w = work_of(d, &v);
    const uint64_t generator = d->generator ? d->generator->bytes : 0;
    fprintf(to, "%" PRIu64 " parameters, %.2f MFLOP an image; %d steps of %d images, %d real ones; %s, %s\n", v.step->net.param_count,
            2e-6 * (double)net_macs(&v.step->net), c->T, c->B, c->meta_batch, c->dtype == ENG_F64 ? "float64" : "float32", v.step->k->name);
    if (v.n_kept < c->T)
        print_plan("inner step", v.step, to);
    if (v.keeper)
        print_plan("inner step that keeps", v.keeper, to);
    if (v.real)
        print_plan("real batch", v.real, to);
    if (d->generator)
        print_plan("generator", d->generator, to);
    fprintf(to, "\nmemory     %10.2f MiB\n  arena    %10.2f      the largest of the learner's plans\n  kept     %10.2f      %d of %d steps keep values and adjoints for their tangent pass\n"
            "  rows     %10.2f      weights, optimiser's states, gradients, adjoints\n", mib(v.total + generator), mib(v.arena), mib(v.kept), v.n_kept, c->T, mib(v.rows));
    if (d->generator)
        fprintf(to, "  generator%10.2f\n", mib(generator));
    fprintf(to, "work       %10.3f GFLOP\n  training %10.3f      a step\n", 1e-9 * (double)w.total, 1e-9 * (double)w.train);
    if (v.real)
        fprintf(to, "  way back %10.3f      a step (%.3f where it has been kept)\n  real     %10.3f      a batch\n", 1e-9 * (double)w.tangent,
                1e-9 * (double)w.tangent_kept, 1e-9 * (double)w.real);
    if (d->generator)
        fprintf(to, "  generator%10.3f      a step, its forward twice\n", 1e-9 * (double)w.generator);
}

/* ---- JSON ---- */

static json_t *integer(uint64_t v) { return json_integer((json_int_t)v); }

static json_t *op_json(const struct eng_plan *p, int i)
{
    const struct node *n = &p->node[i];
    const struct tensor *y = &p->tensor[n->out];
    char kernel[32];
    kernel_text(p, n, kernel, sizeof kernel);
    json_t *f = json_object(), *inputs = json_array();
    for (int r = 0; r < N_RULES; r++)
        if (r == FORWARD || (r == BACKWARD && (p->need & ENG_GRAD)) || (p->need & ENG_TANGENT))
            json_object_set_new(f, rules[r], integer(plan_flops(p, i, r, p->kept_bytes > 0)));
    for (int k = 0; k < n->n_in; k++) {
        const int made = p->tensor[p->tensor[n->in[k]].root].producer;
        if (made >= 0)
            json_array_append_new(inputs, json_integer(made));
    }
    json_t *o = json_pack("{s:s, s:s, s:o, s:[i,i,i,i], s:s, s:s, s:o, s:o}", "op", op_traits[n->op].name, "layer", p->net.node[n->net_node].path, "inputs",
                          inputs, "output", y->batched ? p->batch : 1, y->s.h, y->s.w, y->s.c, "kernel", kernel, "value", fate(p, n), "bytes_forth",
                          integer(alive(p, i, false)), "flops", f);
    if (p->need & ENG_GRAD)
        json_object_set_new(o, "bytes_back", integer(alive(p, i, true)));
    return o;
}

static void add_plan(json_t *to, const char *name, const struct eng_plan *p)
{
    if (!p)
        return;
    json_t *ops = json_array(), *again = json_array();
    for (int i = 0; i < p->n_nodes; i++)
        json_array_append_new(ops, op_json(p, i));
    for (int i = 0; i < p->n_redo; i++)
        json_array_append_new(again, json_pack("{s:i, s:i}", "before", p->redo[i].before, "op", p->redo[i].node));
    json_object_set_new(to, name, json_pack("{s:i, s:o, s:o, s:o, s:o, s:o}", "batch", p->batch, "arena_bytes", integer(p->bytes), "scratch_bytes",
                                            integer(p->scratch_bytes), "kept_bytes", integer(p->kept_bytes), "ops", ops, "recomputed", again));
}

struct json_t *plan_to_json(const struct plan_doc *d)
{
    const struct unroll_cfg *c = d->cfg;
    const struct unroll_view v = unroll_view(d->unroll);
    const struct work w = work_of(d, &v);
    const uint64_t generator = d->generator ? d->generator->bytes : 0;
    json_t *plans = json_object();
    add_plan(plans, "step", v.n_kept < c->T ? v.step : NULL);
    add_plan(plans, "keeping_step", v.keeper);
    add_plan(plans, "real", v.real);
    add_plan(plans, "generator", d->generator);
    json_t *memory = json_pack("{s:o, s:o, s:o, s:o, s:o}", "arena_bytes", integer(v.arena), "kept_bytes", integer(v.kept), "rows_bytes", integer(v.rows),
                               "generator_bytes", integer(generator), "total_bytes", integer(v.total + generator));
    json_t *work = json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "step", integer(w.train), "way_back", integer(w.tangent), "way_back_kept",
                             integer(w.tangent_kept), "real", integer(w.real), "generator", integer(w.generator), "total", integer(w.total));
    return json_pack("{s:o, s:o, s:i, s:i, s:i, s:s, s:s, s:o, s:i, s:o, s:o, s:o}", "params", integer(v.step->net.param_count), "macs",
                     integer(net_macs(&v.step->net)), "steps", c->T, "batch", c->B, "meta_batch", c->meta_batch, "dtype",
                     c->dtype == ENG_F64 ? "float64" : "float32", "kernels", v.step->k->name, "budget_bytes", integer(c->budget_bytes), "kept_steps",
                     v.n_kept, "memory", memory, "flops", work, "plans", plans);
}
