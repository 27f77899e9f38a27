package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/skiff-ml/skiff/runtime/launch"
	"github.com/skiff-ml/skiff/runtime/launch/logfile"
)

// shutdownGrace is how long a command that named no grace has after a SIGTERM
// that skiff did not send: well under the ten seconds that engines give.
const shutdownGrace = 5 * time.Second

// base is what a launcher has beyond the life of one container. Its loop alone
// touches it.
type base struct {
	life     int // counts containers
	events   chan event
	signals  chan os.Signal
	deaths   chan death
	awaiting bool // a goroutine waits for children
	kept     bool // a keeper's: only the loop's thread is in the container's root
}

func newBase() *base {
	b := &base{events: make(chan event), deaths: make(chan death), signals: make(chan os.Signal, 64)}
	signal.Notify(b.signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	return b
}

// launcher is the state of one life. Its loop alone touches it.
//
//	waiting ──command──► running ──command's end──► sweeping ──all reaped──► exited
//	   │                    └──its failure──► held ──stop──►┤
//	   └──────────────stop or signal───────────────────────►┘
type launcher struct {
	*base
	cfg    launch.Config
	env    []string // of commands, before what they ask for
	home   string   // working directory of commands that name none
	folder folder
	lock   rawFile // held; tells what was started, and in the end the record
	told   []byte  // its line about the start

	phase launch.Phase
	conns map[*conn]struct{}

	cmd     *launch.Command
	who     *identity // whom the command runs as; nil for the launcher's own user
	started launch.Started
	pid     int // of the command; 0 once it was reaped
	execs   map[int]*conn
	logs    *logfile.Writer
	pumps   []*pump
	oom     oomCounter

	reason   string // ReasonStopped or ReasonShutdown once the end was asked for
	killed   bool   // the grace was over
	killAt   time.Time
	killer   <-chan time.Time
	sweeping bool
	sweeper  <-chan time.Time
	pause    time.Duration // between two rounds of the sweep

	opener <-chan time.Time // when a kept launcher opens its socket
	opened *os.File

	held   *launch.Held // while a failed command's container is kept
	holder <-chan time.Time

	record launch.ExitRecord
}

func newLauncher(b *base, cfg launch.Config, dir folder, lock rawFile) *launcher {
	b.life++
	dir.uid, dir.gid = cfg.DaemonUID, cfg.DaemonGID
	return &launcher{
		base: b, cfg: cfg, folder: dir, lock: lock, phase: launch.PhaseWaiting,
		conns: map[*conn]struct{}{}, execs: map[int]*conn{},
	}
}

// live has the world arranged, waits, runs, and writes the record. It returns
// the process's exit code, and whether there is a record.
func (l *launcher) live(arrange func() error) (code int, recorded bool) {
	listener, err := l.listen()
	if err != nil {
		return refuse(err), false
	}
	defer func() { _ = listener.Close() }() // nil does nothing
	if os.Getpid() != 1 {
		prctl(prSetChildSubreaper, 1)
	}
	if err := arrange(); err != nil {
		l.cannotRun(codeNotStarted, err.Error())
		return l.finish()
	}
	if cmd, err := commandOnDisk(); err != nil {
		l.cannotRun(codeNotStarted, err.Error())
		return l.finish()
	} else if cmd != nil {
		l.run(*cmd)
	} else {
		l.hearAll()
	}
	if listener != nil {
		go l.accept(listener, l.life)
		return l.loop()
	}
	l.atOnce()
	wait := time.Duration(0)
	if l.cmd != nil {
		wait = commandShort
	}
	l.opener = time.After(wait)
	code, recorded = l.loop()
	listener = l.opened
	return code, recorded
}

// open opens a kept launcher's socket. Without it nobody can reach the launcher but
// the daemon that it was born with.
func (l *launcher) open() {
	l.opener = nil
	listener, err := listen()
	if err != nil {
		fmt.Fprintln(os.Stderr, "launcher:", err) // the command may run already
		return
	}
	l.opened = listener
	go l.accept(listener, l.life)
}

// listen opens the socket, for which a kept launcher has time later: it hears the
// daemon without.
func (l *launcher) listen() (*os.File, error) {
	if l.kept {
		return nil, nil
	}
	return listen()
}

// commandSoon is how long a kept launcher waits for the command before it opens
// its socket: where there is no gate, the command comes right behind the container.
const commandSoon = 2 * time.Millisecond

// commandShort is how long a command may take before the socket is opened: one
// that is over by then was the business of the daemon that gave it.
const commandShort = 20 * time.Millisecond

// atOnce acts on what comes right away.
func (l *launcher) atOnce() {
	if l.cmd != nil {
		return
	}
	select {
	case e := <-l.events:
		l.handle(e)
	case s := <-l.signals:
		l.signal(s)
	case <-time.After(commandSoon):
	}
}

// arrange joins control groups and builds the view, where the configuration
// asks for that.
func (l *launcher) arrange() error {
	view := l.cfg.View
	if view == nil {
		l.oom = findOOMCounter()
		closeToCommand()
		return nil
	}
	if err := joinCgroups(view.Cgroups); err != nil {
		return err
	}
	l.oom = findOOMCounter()
	if err := buildView(*view); err != nil {
		return err
	}
	closeToCommand()
	return nil
}

// hearAll takes the signals that are passed on. It costs time, so it is done
// when the command runs, or when there is nothing to do but wait.
func (l *launcher) hearAll() {
	signal.Notify(l.signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT)
}

func (l *launcher) loop() (code int, recorded bool) {
	for {
		if l.record.Reason != "" && l.held == nil && l.sweep() {
			return l.finish()
		}
		select {
		case e := <-l.events:
			l.handle(e)
		case s := <-l.signals:
			l.signal(s)
		case d := <-l.deaths:
			l.died(d)
		case <-l.killer:
			l.kill()
		case <-l.sweeper:
			l.sweeper = nil
		case <-l.opener:
			l.open()
		case <-l.holder:
			l.release()
		}
	}
}

// handle acts on one event of one connection.
func (l *launcher) handle(e event) {
	switch f := e.frame; {
	case e.conn.life != l.life:
		e.drop()
	case e.isNew:
		l.conns[e.conn] = struct{}{}
		e.conn.send(launch.Frame{Hello: &launch.Hello{Version: launch.Version, Phase: l.phase, PID: os.Getpid()}})
		if l.started.CommandID != "" {
			e.conn.send(launch.Frame{Started: &l.started})
		}
		if l.held != nil {
			e.conn.send(launch.Frame{Held: l.held})
		}
	case e.gone:
		delete(l.conns, e.conn)
		if e.conn.exec != 0 && !l.sweeping {
			_ = syscall.Kill(-e.conn.exec, syscall.SIGKILL)
		}
		_ = e.conn.f.Close()
	case f.Launch != nil:
		l.launch(e.conn, *f.Launch)
	case f.Signal != nil:
		l.pass(syscall.Signal(f.Signal.Number))
	case f.Stop != nil:
		l.end(launch.ReasonStopped, syscall.SIGTERM, f.Stop.Grace)
	case f.Exec != nil:
		l.exec(e.conn, *f.Exec, e.fds)
	default:
		e.conn.send(launch.Frame{Error: "a launcher does not take this message"})
	}
}

// launch runs the command, or repeats what became of it.
func (l *launcher) launch(c *conn, cmd launch.Command) {
	switch {
	case l.cmd == nil && l.record.Reason == "":
		if cmd.ID == "" {
			c.send(launch.Frame{Error: "the command has no id"})
			return
		}
		l.run(cmd)
	case l.cmd == nil:
		c.send(launch.Frame{Error: "this launcher is ending"})
	case l.cmd.ID != cmd.ID:
		c.send(launch.Frame{Error: fmt.Sprintf("this launcher has already run command %q", l.cmd.ID)})
	case l.started.CommandID != "":
		c.send(launch.Frame{Started: &l.started})
	}
}

// signal acts on a signal from outside.
func (l *launcher) signal(s os.Signal) {
	switch s {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
		grace := shutdownGrace
		if l.cmd != nil && l.cmd.Grace > 0 {
			grace = l.cmd.Grace
		}
		l.end(launch.ReasonShutdown, s.(syscall.Signal), grace)
	default:
		l.pass(s.(syscall.Signal))
	}
}

// pass sends a signal to the command's process group.
func (l *launcher) pass(s syscall.Signal) {
	if l.pid > 0 {
		_ = syscall.Kill(-l.pid, s) // it may have ended this instant
	}
}

// end asks the command to end and sets the time for force. The first who asks
// gives the reason; a later one may only shorten the grace.
func (l *launcher) end(reason string, s syscall.Signal, grace time.Duration) {
	if l.held != nil {
		l.release()
	}
	if l.record.Reason != "" {
		return // it is ending already
	}
	if l.reason == "" {
		l.reason = reason
	}
	if l.pid == 0 {
		l.record.Reason = l.reason
		l.record.ExitCode = 128 + int(syscall.SIGTERM)
		l.record.Message = "ended before it had a command"
		return
	}
	l.pass(s)
	at := time.Now().Add(max(grace, 0))
	if l.killAt.IsZero() || at.Before(l.killAt) {
		l.killAt = at
		l.killer = time.After(time.Until(at))
	}
}

// kill ends everything by force.
func (l *launcher) kill() {
	l.killer = nil
	l.killed = true
	killAll()
}

// reaped takes note of a child that has ended.
func (l *launcher) reaped(pid int, status syscall.WaitStatus, used syscall.Rusage) {
	l.record.CPUTime += time.Duration(used.Utime.Nano() + used.Stime.Nano())
	l.record.MaxRSS = max(l.record.MaxRSS, used.Maxrss<<10)
	if c, ok := l.execs[pid]; ok {
		delete(l.execs, pid)
		c.exec = 0
		c.send(launch.Frame{Execed: &launch.Execed{ExitCode: exitCode(status)}})
		return
	}
	if pid != l.pid {
		return // an orphan that became our child
	}
	l.pid = 0
	l.killer = nil
	l.ended(status)
}

// ended fills the record from how the command ended.
func (l *launcher) ended(status syscall.WaitStatus) {
	r := &l.record
	r.FinishedAt = time.Now().UTC()
	r.ExitCode = exitCode(status)
	if status.Signaled() {
		r.Signal = int(status.Signal())
		r.Message = "ended by signal " + status.Signal().String()
	}
	switch {
	case r.ExitCode != 0 && !l.killed && l.oom.rose():
		r.Reason = launch.ReasonOOMKilled
		r.Message = "the command needed more memory than its limit"
	case l.reason != "":
		r.Reason = l.reason
		if l.reason == launch.ReasonShutdown {
			r.Message = "the container was ended from outside"
		}
		if r.ExitCode == 0 {
			r.ExitCode = 128 + int(syscall.SIGTERM)
			r.Message = "ended with code 0 after it had been told to stop"
		}
	case r.ExitCode == 0:
		r.Reason = launch.ReasonCompleted
	default:
		r.Reason = launch.ReasonError
	}
	l.hold()
}

// exitCode is a shell's: 128 and the signal's number for one that a signal ended.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}
