#include "client/ties.h"

#include "client/print.h"

#include <math.h>

double ties_t975(int df)
{
    static const double first[] = { 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
                                    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042 };
    const int n = (int)(sizeof first / sizeof first[0]);
    const double z = 1.959964, z3 = z * z * z; /* beyond the table: Cornish-Fisher, good to 0.0001 there */
    return df <= n ? first[df - 1] : z + (z3 + z) / (4.0 * df) + (5 * z3 * z * z + 16 * z3 + 3 * z) / (96.0 * df * df);
}

/* Sum of squares around the mean of a row's initialisations, and how many there are. */
static double squares(const json_t *trial, size_t *n)
{
    const json_t *list = json_object_get(trial, "init_scores");
    double mean = 0, sum = 0;
    *n = json_array_size(list);
    for (size_t i = 0; i < *n; i++)
        mean += json_number_value(json_array_get(list, i)) / (double)*n;
    for (size_t i = 0; i < *n; i++)
        sum += pow(json_number_value(json_array_get(list, i)) - mean, 2);
    return sum;
}

static json_int_t rung_of(const json_t *row) { return json_integer_value(json_object_get(row, "rung")); }

static size_t rows_of(const json_t *best)
{
    const size_t n = json_array_size(best);
    return n < TIES_ROWS ? n : TIES_ROWS;
}

size_t ties_rung(const json_t *best)
{
    const size_t n = rows_of(best);
    size_t i = 0;
    while (i < n && rung_of(json_array_get(best, i)) == rung_of(json_array_get(best, 0)))
        i++;
    return i;
}

size_t ties_above(const json_t *best, int lowest, const json_t **top)
{
    const double first = doc_num(json_array_get(best, 0), "score");
    size_t n = 0;
    *top = NULL;
    for (size_t i = ties_rung(best); i < rows_of(best); i++) {
        const json_t *row = json_array_get(best, i);
        if (rung_of(row) < lowest || !(doc_num(row, "score") > first))
            continue;
        n++;
        if (!*top || doc_num(row, "score") > doc_num(*top, "score"))
            *top = row;
    }
    return n;
}

size_t ties_with_first(const json_t *best, int *df)
{
    const size_t rows = ties_rung(best);
    const json_t *first = json_array_get(best, 0);
    double sum = 0;
    size_t n, n1, i;
    *df = 0;
    for (i = 0; i < rows; i++) {
        sum += squares(json_array_get(best, i), &n);
        *df += n > 1 ? (int)n - 1 : 0;
    }
    if (*df == 0)
        return rows ? 1 : 0;
    const double s = sqrt(sum / *df), t = ties_t975(*df);
    squares(first, &n1);
    for (i = 1; i < rows; i++) {
        const json_t *row = json_array_get(best, i);
        squares(row, &n);
        if (!n || !n1 || !(doc_num(first, "score") - doc_num(row, "score") <= t * s * sqrt(1.0 / (double)n1 + 1.0 / (double)n)))
            break;
    }
    return i;
}
