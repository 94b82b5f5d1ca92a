#include "client/torch.h"

#include "client/print.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef char var_name[96];

struct writer {
    const struct net *n;
    FILE     *f;
    bool     *live;
    int      *last;  /* the last layer that reads it */
    int      *next;  /* the live layer after it */
    var_name *name;  /* as an attribute of the module, or a variable of forward */
    struct errbuf *e;
};

static bool is_module(const struct net_node *d) { return d->op == NET_CONV || d->op == NET_LINEAR || d->op == NET_BN; }

static const struct net_param *param_of(const struct net *n, const struct net_node *d, enum net_role role)
{
    for (int p = 0; p < d->n_params; p++)
        if (n->param[d->param0 + p].role == role)
            return &n->param[d->param0 + p];
    return NULL;
}

/* "block1.conv" becomes block1_conv; a single word ends in _, so that it is neither a keyword nor a method of nn.Module. */
static void make_name(struct writer *w, int i)
{
    const struct net_node *d = &w->n->node[i];
    const char *weight = d->at.weight_name && strcmp(d->at.weight_name, "weight") != 0 ? d->at.weight_name : "";
    char *out = w->name[i];
    snprintf(out, sizeof(var_name), "%s%s%s%s", isdigit((unsigned char)d->path[0]) ? "l" : "", d->path, *weight ? "_" : "", weight);
    for (char *p = out; *p; p++)
        if (!isalnum((unsigned char)*p))
            *p = '_';
    size_t at = strlen(out);
    if (!strchr(out, '_'))
        snprintf(out + at, sizeof(var_name) - at, "_");
    for (int k = 0; k < i; k++)
        if (w->live[k] && strcmp(w->name[k], out) == 0) { /* a.b and a_b */
            at = strlen(out);
            snprintf(out + at, sizeof(var_name) - at, "_%d", i);
            break;
        }
}

static int prepare(struct writer *w)
{
    size_t n = (size_t)w->n->n_nodes;
    w->live = calloc(n, sizeof *w->live);
    w->last = calloc(n, sizeof *w->last);
    w->next = calloc(n, sizeof *w->next);
    w->name = calloc(n, sizeof *w->name);
    if (!w->live || !w->last || !w->next || !w->name)
        return err_set(w->e, ERR_NOMEM, "out of memory");
    w->live[w->n->out] = w->live[0] = true;
    for (int i = w->n->out, after = -1; i >= 0; i--) {
        if (!w->live[i])
            continue;
        w->next[i] = after;
        after = i;
        for (int k = 0; k < w->n->node[i].n_in; k++) {
            int in = w->n->node[i].in[k];
            w->live[in] = true;
            w->last[in] = i > w->last[in] ? i : w->last[in];
        }
    }
    for (int i = 1; i <= w->n->out; i++)
        if (w->live[i])
            make_name(w, i);
    return 0;
}

/* "1, 28, 28", "10" */
static const char *dims_text(char out[48], const struct net_shape *s)
{
    if (s->flat)
        snprintf(out, 48, "%d", s->c);
    else
        snprintf(out, 48, "%d, %d, %d", s->c, s->h, s->w);
    return out;
}

/* ---- the module ---- */

static void put_module(struct writer *w, int i)
{
    const struct net_node *d = &w->n->node[i];
    const struct net_shape *in = &w->n->node[d->in[0]].shape;
    const struct net_attr *a = &d->at;
    fprintf(w->f, "        self.%s = ", w->name[i]);
    if (d->op == NET_CONV) {
        fprintf(w->f, "nn.Conv2d(%d, %d, %d", in->c, a->out, a->k);
        if (a->stride > 1)
            fprintf(w->f, ", stride=%d", a->stride);
        if (a->pad)
            fprintf(w->f, ", padding=%d", a->pad);
        if (a->dilation > 1)
            fprintf(w->f, ", dilation=%d", a->dilation);
        if (a->groups > 1)
            fprintf(w->f, ", groups=%d", a->groups);
        fprintf(w->f, "%s)\n", a->bias ? "" : ", bias=False");
    } else if (d->op == NET_LINEAR) {
        fprintf(w->f, "nn.Linear(%d, %d%s)\n", in->c, a->out, a->bias ? "" : ", bias=False");
    } else if (a->mean_only) {
        fprintf(w->f, "MeanOnlyNorm(%d)\n", d->shape.c);
    } else {
        fprintf(w->f, "nn.BatchNorm%dd(%d, eps=%g)\n", d->shape.flat ? 1 : 2, d->shape.c, a->eps);
    }
}

/* A value that only the next layer reads needs no name of its own. */
static const char *value(const struct writer *w, int i)
{
    return w->last[i] == w->next[i] || i == w->n->out ? "x" : i == 0 ? "image" : w->name[i];
}

static void put_merge(const struct writer *w, const struct net_node *d, const char *open, const char *between, const char *close, char *out,
                      size_t cap)
{
    size_t at = (size_t)snprintf(out, cap, "%s", open);
    for (int k = 0; k < d->n_in && at < cap; k++)
        at += (size_t)snprintf(out + at, cap - at, "%s%s", k ? between : "", value(w, d->in[k]));
    if (at < cap)
        snprintf(out + at, cap - at, "%s", close);
}

static int expression(const struct writer *w, int i, char *out, size_t cap)
{
    const struct net_node *d = &w->n->node[i];
    const struct net_attr *a = &d->at;
    const char *x = value(w, d->in[0]);
    switch (d->op) {
    case NET_CONV:
    case NET_LINEAR:
    case NET_BN:      snprintf(out, cap, "self.%s(%s)", w->name[i], x); break;
    case NET_LRELU:
        if (a->slope == 0)
            snprintf(out, cap, "F.relu(%s)", x);
        else
            snprintf(out, cap, "F.leaky_relu(%s, %g)", x, a->slope);
        break;
    case NET_TANH:    snprintf(out, cap, "torch.tanh(%s)", x); break;
    case NET_MAXPOOL: snprintf(out, cap, "F.max_pool2d(%s, %d, %d, %d)", x, a->k, a->stride, a->pad); break;
    case NET_AVGPOOL: snprintf(out, cap, "F.avg_pool2d(%s, %d, %d, %d, count_include_pad=False)", x, a->k, a->stride, a->pad); break;
    case NET_GAP:     snprintf(out, cap, "%s.mean((2, 3))", x); break;
    case NET_FLATTEN: snprintf(out, cap, "%s.flatten(1)", x); break;
    case NET_RESHAPE: snprintf(out, cap, "%s.reshape(-1, %d, %d, %d)", x, a->c, a->h, a->w); break;
    case NET_UP2:     snprintf(out, cap, "F.interpolate(%s, scale_factor=2, mode=\"nearest\")", x); break;
    case NET_REFLECTPAD: snprintf(out, cap, "F.pad(%s, (%d, %d, %d, %d), mode=\"reflect\")", x, a->pad, a->pad, a->pad, a->pad); break;
    case NET_ADD:     put_merge(w, d, "", " + ", "", out, cap); break;
    case NET_CONCAT:  put_merge(w, d, "torch.cat((", ", ", "), 1)", out, cap); break;
    default:          return err_set(w->e, ERR_INTERNAL, "%s: %s has no form in PyTorch", d->path, net_op_name(d->op));
    }
    return 0;
}

static int put_forward(struct writer *w)
{
    char text[2048], line[2300], dims[48];
    fprintf(w->f, "\n    def forward(self, %s):  # [N, %s]\n", value(w, 0), dims_text(dims, &w->n->node[0].shape));
    for (int i = 1; i <= w->n->out; i++) {
        if (!w->live[i])
            continue;
        int rc = expression(w, i, text, sizeof text);
        if (rc < 0)
            return rc;
        snprintf(line, sizeof line, "        %s = %s", value(w, i), text);
        fprintf(w->f, "%-64s  # [N, %s]\n", line, dims_text(dims, &w->n->node[i].shape));
    }
    fprintf(w->f, "        return %s\n", value(w, w->n->out));
    return 0;
}

/* ---- weights ---- */

static void put_pair(FILE *f, const char *module, const char *leaf, const char *tensor)
{
    fprintf(f, "    \"%s.%s\": \"%s\",\n", module, leaf, tensor);
}

/* Leaves of a module that are stored as they are; and, `folded`, the one that is g * v / |v|. */
static void put_names(const struct writer *w, int i, bool folded)
{
    static const struct { enum net_role role; const char *leaf; } leaves[] = {
        { NET_WEIGHT, "weight" }, { NET_BIAS, "bias" }, { NET_BN_GAIN, "weight" }, { NET_BN_BIAS, "bias" } };
    const struct net_node *d = &w->n->node[i];
    const struct net_param *v = param_of(w->n, d, NET_WEIGHT_V), *g = param_of(w->n, d, NET_WEIGHT_G);
    char name[96];
    if (folded && v && g)
        fprintf(w->f, "    \"%s.weight\": (\"%s\", \"%s\"),\n", w->name[i], v->name, g->name);
    for (size_t k = 0; !folded && k < sizeof leaves / sizeof leaves[0]; k++) {
        const struct net_param *p = param_of(w->n, d, leaves[k].role);
        if (p)
            put_pair(w->f, w->name[i], leaves[k].leaf, p->name);
    }
    for (int k = 0; !folded && d->op == NET_BN && k < (d->at.mean_only ? 1 : 2); k++) {
        const char *leaf = k ? "running_var" : "running_mean";
        snprintf(name, sizeof name, "%s.%s", d->path, leaf);
        put_pair(w->f, w->name[i], leaf, name);
    }
}

static bool any_folded(const struct writer *w)
{
    for (int i = 1; i <= w->n->out; i++)
        if (w->live[i] && param_of(w->n, &w->n->node[i], NET_WEIGHT_V))
            return true;
    return false;
}

static void put_tables(const struct writer *w)
{
    for (int folded = 0; folded < 1 + any_folded(w); folded++) {
        fprintf(w->f, folded ? "# Weight norm: the weight is g * v / |v|, per output channel.\nFOLDED = {\n"
                             : "# What each tensor of this module is called in the file of weights.\nNAMES = {\n");
        for (int i = 1; i <= w->n->out; i++)
            if (w->live[i] && is_module(&w->n->node[i]))
                put_names(w, i, folded);
        fprintf(w->f, "}\n");
    }
}

static void put_load(const struct writer *w, const char *weights)
{
    static const char fold[] = "    for ours, (v, g) in FOLDED.items():\n"
                               "        v, g = tensors[v].double(), tensors[g].double()\n"
                               "        scale = g / v.flatten(1).norm(dim=1)\n"
                               "        state[ours] = (v * scale.reshape(-1, *[1] * (v.dim() - 1))).float()\n";
    fprintf(w->f, "\n\n");
    put_tables(w);
    fprintf(w->f,
            "\n\ndef read_tensors(path):\n"
            "    \"\"\"The float32 tensors of a safetensors file.\"\"\"\n"
            "    with open(path, \"rb\") as f:\n"
            "        head = json.loads(f.read(int.from_bytes(f.read(8), \"little\")))\n"
            "        data = f.read()\n"
            "    head.pop(\"__metadata__\", None)\n"
            "    return {name: torch.frombuffer(bytearray(data[slice(*t[\"data_offsets\"])]), dtype=torch.float32).reshape(t[\"shape\"])\n"
            "            for name, t in head.items()}\n"
            "\n\ndef load(path=Path(__file__).with_name(\"%s\")):\n"
            "    \"\"\"The trained network, ready to say what it sees.\"\"\"\n"
            "    net, tensors = Net(), read_tensors(path)\n"
            "    state = net.state_dict()\n"
            "    for ours, theirs in NAMES.items():\n"
            "        state[ours] = tensors[theirs]\n"
            "%s"
            "    net.load_state_dict(state)\n"
            "    return net.eval()\n", weights, any_folded(w) ? fold : "");
}

/* ---- the file ---- */

static void put_text(FILE *f, const char *s) /* inside a docstring */
{
    for (; *s; s++)
        fputc(*s == '\\' || *s == '"' ? '\'' : *s, f);
}

static void put_head(const struct writer *w, const struct torch_about *about)
{
    short_str p, m;
    char dims[48];
    fprintf(w->f, "\"\"\"");
    put_text(w->f, about->arch);
    fprintf(w->f, "\n\n");
    put_text(w->f, about->origin);
    fprintf(w->f, "\n%s parameters, %s multiply-adds an image.\n\nInput: float32 [N, %s], pixels p of 0 to 255 as p / 127.5 - 1. Output: logits [N, %d].\n",
            fmt_count(p, (double)w->n->param_count), fmt_count(m, (double)net_macs(w->n)), dims_text(dims, &w->n->node[0].shape),
            w->n->node[w->n->out].shape.c);
    if (about->weights)
        fprintf(w->f, "\n    net = load()                 # the trained weights, from %s beside this file\n", about->weights);
    else
        fprintf(w->f, "\n    net = Net()                  # fresh weights: this candidate was not trained on real data\n");
    fprintf(w->f, "\"\"\"\n%simport torch\nfrom torch import nn\nfrom torch.nn import functional as F\n",
            about->weights ? "import json\nfrom pathlib import Path\n\n" : "");
}

static void put_mean_only(FILE *f)
{
    fprintf(f, "\n\nclass MeanOnlyNorm(nn.Module):\n"
               "    \"\"\"Batch norm without its scale: y = x - mean + bias.\"\"\"\n\n"
               "    def __init__(self, channels, momentum=0.1):\n"
               "        super().__init__()\n"
               "        self.momentum = momentum\n"
               "        self.bias = nn.Parameter(torch.zeros(channels))\n"
               "        self.register_buffer(\"running_mean\", torch.zeros(channels))\n\n"
               "    def forward(self, x):\n"
               "        mean = self.running_mean\n"
               "        if self.training:\n"
               "            mean = x.mean([d for d in range(x.dim()) if d != 1])\n"
               "            self.running_mean.lerp_(mean.detach(), self.momentum)\n"
               "        return x + (self.bias - mean).reshape(1, -1, *[1] * (x.dim() - 2))\n");
}

int torch_write(const struct net *n, const struct torch_about *about, FILE *f, struct errbuf *e)
{
    struct writer w = { .n = n, .f = f, .e = e };
    int rc = prepare(&w);
    bool mean_only = false;
    if (rc == 0) {
        put_head(&w, about);
        for (int i = 1; i <= n->out; i++)
            mean_only |= w.live[i] && n->node[i].op == NET_BN && n->node[i].at.mean_only;
        if (mean_only)
            put_mean_only(f);
        fprintf(f, "\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n");
        for (int i = 1; i <= n->out; i++)
            if (w.live[i] && is_module(&n->node[i]))
                put_module(&w, i);
        rc = put_forward(&w);
    }
    if (rc == 0 && about->weights)
        put_load(&w, about->weights);
    free(w.live);
    free(w.last);
    free(w.next);
    free(w.name);
    return rc;
}
