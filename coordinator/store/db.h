/* db.h - what the files of coordinator/store share. Not for anybody else. */
#ifndef DIDACT_COORDINATOR_STORE_DB_H
#define DIDACT_COORDINATOR_STORE_DB_H

#include "coordinator/store/store.h"

#include <sqlite3.h>

extern const char *const db_migration[STORE_VERSION]; /* [v] leads from version v to v + 1 */

int  db_error(sqlite3 *db, struct errbuf *e, const char *what); /* SQLite's last error as one of ours */
int  db_exec(sqlite3 *db, const char *sql, struct errbuf *e);
int  db_open(sqlite3 **out, const char *path, bool writer, struct errbuf *e);
int  db_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **out, struct errbuf *e);
void db_text(sqlite3_stmt *s, int col, char *out, size_t cap);

/* Doubles and integers as text of 17 significant digits: what people can read with any SQLite shell, exact both ways. */
void db_doubles_text(char *out, size_t cap, const double *v, int n);
int  db_doubles_parse(const char *text, double *v, int cap);
void db_zero_cost_text(char *out, size_t cap, const struct zero_cost_scores *z); /* "synflow=12.5 naswot=210.25" */
void db_zero_cost_parse(const char *text, struct zero_cost_scores *z);           /* names that are not known are passed over */
#define DB_LIST_TEXT (MAX_INITS * 26)

/* A book row in the order of a trial's columns, so that one reader does for both; its own follow. */
#define DB_BOOK_COLS "0,0,state,arch,arch_hash,NULL,seed,0,0,'',0,'',NULL,0,0,'',reason,detail,score,score_se,init_scores,checkpoint_steps," \
                     "checkpoint_scores,loss_sum,lr_scale,0.0,params,macs,0,'','',seconds,0,0,zero_cost,0,0,'','',0.0,space,dataset,curriculum,fidelity," \
                     "engine,key"
#define DB_BOOK_SPACE 40 /* the first of its own */
void db_book_row(sqlite3_stmt *s, struct book_row *out); /* read.c */

/* Of a search's trials: what it proposed, and what its audit and its warm-up added (TRIAL_AUDIT …). */
#define DB_CANDIDATE "idx<1000000000"
#define DB_AUDITS    "idx BETWEEN 1000000000 AND 2999999999"
#define DB_WARMUP    "idx>=3000000000"
#define DB_ADDED     "idx>=1000000000"

/* write.c */
struct writer;
int  writer_open(struct writer **out, sqlite3 *db, struct errbuf *e);
void writer_close(struct writer *w);
int  writer_begin(struct writer *w, struct errbuf *e);
int  writer_commit(struct writer *w, struct errbuf *e);
void writer_rollback(struct writer *w);
int  writer_apply(struct writer *w, struct store_op *op); /* sets op->err, op->outcome; -ERR_IO and -ERR_NOMEM end the group */

#endif
