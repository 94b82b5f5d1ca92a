/* audit_plot.c - two panels: the scatter of one column against real accuracy, and all columns' rank correlations as bars with
 * their intervals, over all (dark) and over the better half (light). */
#include "client/audit.h"
#include "client/plot.h"
#include "client/print.h"

#include <math.h>
#include <string.h>

static void scatter(struct canvas *c, const json_t *sample, const json_t *predictor, struct plot p)
{
    enum { MOST = 1000 }; /* the document of a job holds no more; of tables the first ones are shown */
    double x[MOST], y[MOST];
    const char *name = doc_str(predictor, "name");
    char title[80];
    int n = 0;
    size_t i;
    json_t *pair;
    json_array_foreach(json_object_get(sample, "pairs"), i, pair) {
        double v = json_number_value(json_object_get(json_object_get(pair, "values"), name)), a = doc_num(pair, "accuracy");
        if (n < MOST && json_is_number(json_object_get(json_object_get(pair, "values"), name)) && isfinite(a)) {
            x[n] = v;
            y[n++] = a;
        }
    }
    if (n == 0)
        return;
    plot_range(x, n, &p.x0, &p.x1);
    plot_range(y, n, &p.y0, &p.y1);
    snprintf(title, sizeof title, "accuracy after real training (%s)", doc_str(sample, "split"));
    plot_axes(c, &p, name, title);
    double picked = doc_num(predictor, "pick.accuracy"), sign = doc_num(predictor, "sign"), best = -INFINITY;
    for (int k = 0; k < n; k++)
        best = fmax(best, sign * x[k]);
    for (int k = 0; k < n; k++) /* the pick last, so that nothing covers it */
        canvas_disc(c, plot_x(&p, x[k]), plot_y(&p, y[k]), 3.5, PLOT_DARK);
    for (int k = 0; k < n; k++)
        if (sign * x[k] == best && y[k] == picked)
            canvas_disc(c, plot_x(&p, x[k]), plot_y(&p, y[k]), 5, PLOT_MARKED);
    canvas_text(c, p.x + p.w, p.y + p.h + 54, ANCHOR_END, 10, PLOT_MARKED, "red: what %s would pick", name);
    canvas_text(c, p.x - 46, p.y - 30, ANCHOR_START, 10, PLOT_INK, "%s: Spearman %.2f [%.2f %.2f], %d networks", name,
                doc_num(predictor, "all.spearman.value"), doc_num(predictor, "all.spearman.low"), doc_num(predictor, "all.spearman.high"), n);
}

static void bar(struct canvas *c, const struct plot *p, const json_t *e, double y, double h, uint32_t rgb)
{
    double v = doc_num(e, "value"), low = doc_num(e, "low"), high = doc_num(e, "high"), zero = plot_x(p, 0);
    if (!isfinite(v))
        return;
    double at = plot_x(p, v), left = fmin(at, zero), mid = y + h / 2;
    canvas_box(c, left, y, fmax(at, zero) - left, h, rgb);
    if (!isfinite(low) || !isfinite(high))
        return;
    canvas_line(c, plot_x(p, low), mid, plot_x(p, high), mid, 1.2, PLOT_INK);
    canvas_line(c, plot_x(p, low), mid - 3, plot_x(p, low), mid + 3, 1.2, PLOT_INK);
    canvas_line(c, plot_x(p, high), mid - 3, plot_x(p, high), mid + 3, 1.2, PLOT_INK);
}

static void bars(struct canvas *c, const json_t *sample, struct plot p)
{
    double row = 26;
    size_t i;
    json_t *d;
    p.x0 = -1;
    p.x1 = 1;
    for (int k = -2; k <= 2; k++) {
        canvas_line(c, plot_x(&p, k * 0.5), p.y, plot_x(&p, k * 0.5), p.y + p.h, 1, k ? PLOT_FAINT : PLOT_INK);
        canvas_text(c, plot_x(&p, k * 0.5), p.y + p.h + 17, ANCHOR_MIDDLE, 10, PLOT_INK, "%g", k * 0.5);
    }
    canvas_text(c, p.x, p.y - 30, ANCHOR_START, 10, PLOT_INK, "Spearman with 95 %% intervals");
    canvas_text(c, p.x, p.y - 10, ANCHOR_START, 10, PLOT_DARK, "dark: all");
    canvas_text(c, p.x + 90, p.y - 10, ANCHOR_START, 10, PLOT_LIGHT, "light: top half by accuracy");
    json_array_foreach(json_object_get(sample, "predictors"), i, d) {
        if (i == AUDIT_ROOM)
            break;
        double y = p.y + row * (double)i;
        canvas_text(c, p.x - 8, y + 16, ANCHOR_END, 10, PLOT_INK, "%.22s", doc_str(d, "name"));
        bar(c, &p, json_object_get(json_object_get(d, "all"), "spearman"), y + 3, 11, PLOT_DARK);
        bar(c, &p, json_object_get(json_object_get(d, "top_half"), "spearman"), y + 14, 8, PLOT_LIGHT);
    }
}

int audit_plot(const json_t *doc, const char *by, const char *path, struct errbuf *e)
{
    const json_t *sample = NULL;
    size_t i;
    json_t *s;
    json_array_foreach(json_object_get(doc, "samples"), i, s)
        if (doc_num(s, "n") > 0 && (!sample || doc_num(s, "n") > doc_num(sample, "n")))
            sample = s;
    if (!sample)
        return err_set(e, ERR_NOTFOUND, "none of its candidates was trained for real yet: there is nothing to draw");
    const json_t *predictor = audit_predictor(sample, by);
    if (!predictor)
        return err_set(e, ERR_NOTFOUND, "--by %.60s: no such column; the table shows which there are", by);
    size_t rows = json_array_size(json_object_get(sample, "predictors"));
    rows = rows < AUDIT_ROOM ? rows : AUDIT_ROOM;
    double tall = 26.0 * (double)rows > 320 ? 26.0 * (double)rows : 320;
    struct canvas *c = canvas_new(940, (int)tall + 170);
    if (!c)
        return err_set(e, ERR_NOMEM, "out of memory");
    if (doc_get(doc, "truth"))
        canvas_text(c, 24, 28, ANCHOR_START, 10, PLOT_INK, "%.60s: ranks by score and by %.40s", doc_str(doc, "truth.file"), doc_str(doc, "truth.column"));
    else
        canvas_text(c, 24, 28, ANCHOR_START, 10, PLOT_INK, "job %.0f %.40s: ranks after scoring and after real training (epochs: %g)", doc_num(doc, "job.id"),
                    doc_str(doc, "job.name"), doc_num(sample, "training.epochs"));
    scatter(c, sample, predictor, (struct plot){ .x = 70, .y = 90, .w = 380, .h = 320 });
    bars(c, sample, (struct plot){ .x = 630, .y = 90, .w = 280, .h = tall });
    int rc = canvas_write(c, path, e);
    canvas_free(c);
    return rc;
}
