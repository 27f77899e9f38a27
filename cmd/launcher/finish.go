package main

import (
	"encoding/json"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
)

// finish reads what the command left, writes the record, and tells everybody.
func (l *launcher) finish() (code int, recorded bool) {
	heard := false
	for c := range l.conns {
		if c.exec == 0 {
			heard = true
		} else {
			c.exec = 0
			c.send(launch.Frame{Execed: &launch.Execed{ExitCode: 128 + int(syscall.SIGKILL)}})
		}
	}
	r := &l.record
	r.Version = launch.Version
	if r.FinishedAt.IsZero() {
		r.FinishedAt = time.Now().UTC()
	}
	for _, p := range l.pumps {
		p.drain()
	}
	if l.logs != nil {
		written, dropped, err := l.logs.Totals()
		if err2 := l.logs.Close(); err == nil {
			err = err2
		}
		r.LogBytes, r.LogDropped = written, dropped
		if err != nil && r.Message == "" {
			r.Message = fmt.Sprintf("part of the log is lost: %v", err)
		}
	}
	if l.cmd != nil {
		r.CommandID = l.cmd.ID
		l.as(func() {
			r.Outputs, r.OutputErrors = readOutputs(l.cmd.Outputs)
			if r.ExitCode == 0 && l.cmd.Collect != nil {
				r.OutputErrors = collect(*l.cmd.Collect, r.OutputErrors)
			}
		})
	}
	data, err := json.Marshal(r)
	if err == nil {
		// Whoever hears of the end makes it durable where it counts. Where nobody
		// does, the file has to outlive a power loss.
		err = l.folder.replace(launch.ExitFile, data, !heard)
	}
	if err != nil {
		// The daemon will see a launcher that died without a record.
		return refuse(err), false
	}
	l.phase = launch.PhaseExited
	var all sync.WaitGroup
	for c := range l.conns {
		all.Go(func() { c.send(launch.Frame{Exited: r}) })
	}
	all.Wait()
	return r.ExitCode, true
}

// cannotRun makes the record of a command that was never executed.
func (l *launcher) cannotRun(code int, message string) {
	l.record.ExitCode = code
	l.record.Reason = launch.ReasonCannotRun
	l.record.Message = message
	l.record.FinishedAt = time.Now().UTC()
}
