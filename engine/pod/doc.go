// Package pod runs Pods: it joins the store, the scheduler and a runtime
// backend. It is the only place in skiff that starts anything.
//
// # The life of a pod
//
//	           resolved         granted                     launched
//	(created) ─────────► queue ─────────► claim, in one  ─────────► Running
//	    │                  │   transaction with the admission          │
//	    │ invalid, or can  │ asked to stop      │ image, create,       │ exit records,
//	    ▼ never fit        ▼                    ▼ start, launch fail   ▼ or lost
//	  Failed             Failed               Failed          Succeeded, Failed
//
// The claim is cleared in the transaction that makes the pod terminal, which
// happens only when nothing of it runs any more. Then its containers are
// removed and its folder is emptied but for the logs, in the background.
//
// # Who does what
//
// One loop owns the queue and the claims; every other change reaches it as a
// function on a channel. A pod that was admitted has one goroutine, its run,
// which takes it from the admission to the end in a straight line. A pod that
// waits has none; one that has ended is in the store alone.
//
// # At any moment the daemon may die
//
// Names of containers derive from the pod's uid, the container's name and the
// restart count, so doing anything again finds what was there. The order is:
// intent, act, record. The claim is the intent to create; a marker file in the
// pod's folder, which no container can write to, is the intent to hand over the
// command. A run that starts over from the store therefore knows: a container
// that is there is taken up where it stands; one that is not there and has no
// marker never had a command, so it is created; one that is not there and has a
// marker may have run, so the pod fails as lost, which is nobody's fault and
// consumes no retry of the user.
//
// # Three commits
//
// Admission, running, end. A pod whose command ends within runningDelay of its
// start goes from the first to the last.
//
// The package imports api, store, scheduler and runtime. It must not import
// another engine or anything above.
package pod
