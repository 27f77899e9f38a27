package main

import (
	"encoding/json"
	"os"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// hold keeps the container as the failed command left it, where that was asked
// for: nothing else in it is ended, and others may look around by Exec. It ends
// with the hold's time, with a Stop, or with a signal; the record then says of
// the command what is known now. What is on disk tells a daemon that comes later.
func (l *launcher) hold() {
	r := &l.record
	failed := r.Reason == launch.ReasonError || r.Reason == launch.ReasonOOMKilled || r.Reason == launch.ReasonCannotRun
	if l.cmd == nil || l.cmd.Hold <= 0 || !failed || l.reason != "" {
		return
	}
	held := &launch.Held{
		CommandID: l.cmd.ID, ExitCode: r.ExitCode, Signal: r.Signal, Reason: r.Reason, Message: r.Message,
		At: r.FinishedAt, Until: time.Now().UTC().Add(l.cmd.Hold),
	}
	data, err := json.Marshal(held)
	if err == nil {
		err = l.folder.replace(launch.HeldFile, data)
	}
	if err != nil {
		return // nobody would know of it: it ends as it would have
	}
	for _, p := range l.pumps {
		p.catchUp() // whoever hears of the failure finds the last words in the log
	}
	l.held, l.holder = held, time.After(l.cmd.Hold)
	for c := range l.conns {
		if r.Reason == launch.ReasonCannotRun {
			c.send(launch.Frame{Started: &l.started}) // who handed the command over waits for that
		}
		c.send(launch.Frame{Held: held})
	}
}

// release ends the hold.
func (l *launcher) release() {
	l.held, l.holder = nil, nil
	_ = os.Remove(launch.HeldFile) // the exit record that follows outranks it
}
