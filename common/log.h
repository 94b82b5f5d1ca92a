/* log.h - one event per line on stderr: level=info ev=lease_expired trial=42 worker=w7 …
 * Values with spaces or quotes are quoted. Levels: debug, info, warn, error. Thread-safe: one write(2) a line. */
#ifndef DIDACT_LOG_H
#define DIDACT_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_LEVEL_COUNT };

void log_init(const char *program, enum log_level least);
int  log_level_from(const char *s); /* -1: none such */
/* fmt gives "key=value key=value"; string values that may hold spaces go through %s inside quotes by the caller. */
void log_event(enum log_level level, const char *ev, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#define log_debug(...) log_event(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_event(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_event(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_event(LOG_ERROR, __VA_ARGS__)

#endif
