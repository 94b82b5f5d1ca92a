/* dashboard.h - the page at "/": self-contained, reads the same documents as everybody. */
#ifndef DIDACT_COORDINATOR_DASHBOARD_H
#define DIDACT_COORDINATOR_DASHBOARD_H

extern const char dashboard_html[];

#endif
