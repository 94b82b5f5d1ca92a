/* list.h - an intrusive circular list. A head is a link that points at itself; so is a member that is in no list. */
#ifndef DIDACT_COORDINATOR_LIST_H
#define DIDACT_COORDINATOR_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct link { struct link *prev, *next; };

#define list_entry(l, type, member) ((type *)(void *)((char *)(l) - offsetof(type, member)))
#define list_each(l, head) for (struct link *l = (head)->next, *l##_next = l->next; l != (head); l = l##_next, l##_next = l->next)

static inline void list_init(struct link *l)          { l->prev = l->next = l; }
static inline bool list_empty(const struct link *l)   { return l->next == l; }
static inline void list_insert(struct link *before, struct link *l)
{
    l->prev = before->prev;
    l->next = before;
    before->prev->next = l;
    before->prev = l;
}
static inline void list_append(struct link *head, struct link *l) { list_insert(head, l); }
static inline void list_remove(struct link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    list_init(l);
}

#endif
