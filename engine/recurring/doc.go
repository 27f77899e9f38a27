// Package recurring makes runs on schedules: for every enabled RecurringRun it
// makes a Run for each time on its schedule, exactly one, as Kubeflow Pipelines
// does.
//
// # Exactly once
//
// The run of a time has a name that derives from the recurring run's uid and that
// time. One transaction creates it and moves the recurring run's
// status.settledUntil past the time, on the condition that the recurring run is
// still what was read. So a daemon may be killed at any moment: either both have
// happened or neither, and whoever comes next sees which. Nothing else says what
// is to be done: the schedule, settledUntil and the wall clock do.
//
// A time is settled without a run where the run is refused: its pipeline is gone,
// a parameter does not fit. That is written to the object as message and event,
// with the times that have come by then, and the schedule goes on. A fault of the
// machine settles nothing; it is tried again.
//
// # What wakes it
//
// One loop follows the store and holds a heap of the times that come next. It
// sleeps on the store's changes and on one alarm of the wall clock, which also
// tells when the clock was set or the machine slept (Alarm); then every decision
// is taken from the clock anew. A recurring run that has as many active runs as it
// may is in no heap: the end of one of them brings it back.
//
//	store ──changes──► loop ──► heap ──alarm──► due ──► ready ──► a few workers ──► store
//	                    ▲                        │ too many active             │
//	                    └────────────────────────┴─────────────────────────────┘
//
// What the loop knows comes from the store's changes alone: after a run was made
// for a recurring run, no further one is decided on until the change has come
// back. Memory follows the recurring runs that are enabled and the active runs.
//
// The package imports the store and the API types. It knows nothing of HTTP, nor
// of other engines: what a run is made of comes through Pipelines.
package recurring
