package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/skiff-ml/skiff/cmd/skiff/internal/client"
	"github.com/skiff-ml/skiff/cmd/skiff/internal/daemon"
	"github.com/skiff-ml/skiff/store"
)

const (
	// startTimeout is for a daemon that has a large store to open on a slow disk.
	startTimeout = 30 * time.Second
	// redial is between two looks for a daemon that is about to answer: a
	// connection to nothing costs nothing, and no event tells of a daemon that
	// begins to listen.
	redial = 25 * time.Millisecond
	// lostTimeout is how long a waiting client looks for a daemon that went
	// away: a restart by hand or by a supervisor.
	lostTimeout = 2 * time.Minute
)

// session is a connection to a daemon, which may be one inside this process.
type session struct {
	app    *app
	cfg    daemon.Config
	client *client.Client
	// started is true where this command started the daemon.
	started bool
	// embedded is the daemon in this process, where there is one.
	embedded *embedded
	// peerEmbedded is true for a daemon inside another "skiff run", which ends
	// when that command does.
	peerEmbedded bool
}

// embedded is a daemon that lives as long as this command needs it.
type embedded struct {
	stop context.CancelFunc
	done chan struct{}
	err  error
}

// connect finds the daemon, or starts one: inside this process, or for a
// command that returns at once, in the background.
func (a *app) connect(ctx context.Context, cfg daemon.Config, background bool) (*session, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	s := &session{app: a, cfg: cfg, client: c}
	err = c.Ready(ctx)
	if err == nil {
		s.notePeer(ctx)
		return s, nil
	}
	if os.Getenv(envHost) != "" || (!errors.Is(err, client.ErrNoDaemon) && !client.Lost(err)) {
		return nil, err
	}
	if err := s.start(ctx, background); err != nil {
		return nil, err
	}
	return s, nil
}

// reader finds the daemon for a command that only reads. Where none is up, one
// inside this process answers from what the state folder holds. The caller
// calls done.
func (a *app) reader(ctx context.Context) (c *client.Client, done func(), err error) {
	return a.borrow(ctx, true)
}

// writer is reader for a command that changes objects which nothing runs on
// account of; it may be the first on a state folder.
func (a *app) writer(ctx context.Context) (c *client.Client, done func(), err error) {
	return a.borrow(ctx, false)
}

func (a *app) borrow(ctx context.Context, kept bool) (c *client.Client, done func(), err error) {
	c, err = a.client()
	if err != nil {
		return nil, nil, err
	}
	err = c.Ready(ctx)
	if err == nil {
		return c, func() {}, nil
	}
	dir, dirErr := a.absStateDir()
	if os.Getenv(envHost) != "" || !errors.Is(err, client.ErrNoDaemon) || dirErr != nil || (kept && !daemon.Kept(dir)) {
		return nil, nil, err
	}
	cfg := daemon.Config{StateDir: dir, Version: a.version, Reading: true, Runtime: daemon.RuntimeProcess}
	if cfg.Executable, err = os.Executable(); err != nil {
		return nil, nil, fmt.Errorf("find this program's own file: %w", err)
	}
	s := &session{app: a, cfg: cfg, client: c}
	if err := s.start(ctx, false); err != nil {
		return nil, nil, err
	}
	return s.client, s.close, nil
}

// start brings a daemon up. Another process that does the same may win: then
// that one's daemon is used.
func (s *session) start(ctx context.Context, background bool) error {
	if background {
		if err := daemon.Background(s.cfg); err != nil {
			return err
		}
	} else if err := s.embed(ctx); err != nil && !errors.Is(err, store.ErrLocked) {
		return err
	}
	s.started = s.embedded != nil || background
	if err := s.await(ctx, startTimeout); err != nil {
		s.close()
		if background {
			return fmt.Errorf("%w; its log is %s", err, daemon.LogPath(s.cfg.StateDir))
		}
		return err
	}
	// A client made before the daemon's first start knew no token.
	c, err := s.app.client()
	if err != nil {
		return err
	}
	s.client = c
	if s.embedded == nil {
		s.notePeer(ctx)
	}
	return nil
}

// notePeer finds out whether the daemon is one inside another command.
func (s *session) notePeer(ctx context.Context) {
	if node, err := s.client.Node(ctx); err == nil {
		s.peerEmbedded = node.Embedded
	}
}

// embed runs a daemon in this process and returns when it is ready.
func (s *session) embed(ctx context.Context) error {
	cfg := s.cfg
	cfg.Embedded = true
	cfg.Logger = slog.New(slog.NewTextHandler(s.app.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ready := make(chan struct{})
	cfg.OnReady = func(string) { close(ready) }
	// The daemon ends when the session is closed, not when the command's
	// context does: a cancelled run still needs it to come to its end.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	e := &embedded{stop: stop, done: make(chan struct{})}
	go func() {
		defer close(e.done)
		e.err = daemon.Run(running, cfg)
	}()
	select {
	case <-ready:
		s.embedded = e
		return nil
	case <-e.done:
		stop()
		return e.err
	}
}

// await waits until the daemon answers.
func (s *session) await(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(redial)
	defer tick.Stop()
	for {
		err := s.client.Ready(ctx)
		if err == nil {
			return nil
		}
		if !errors.Is(err, client.ErrNoDaemon) && !client.Lost(err) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// recover finds a daemon again after the connection was lost. The run itself is
// durable; where the daemon was one inside another command, this one takes over.
func (s *session) recover(ctx context.Context) error {
	if s.embedded != nil {
		select {
		case <-s.embedded.done:
			return fmt.Errorf("the daemon in this process has ended: %w", s.embedded.err)
		default:
			return s.await(ctx, startTimeout)
		}
	}
	if s.peerEmbedded {
		return s.start(ctx, false)
	}
	s.app.notef("skiff: lost the daemon at %s; the run goes on when it is back", s.client.Where())
	if err := s.await(ctx, lostTimeout); err != nil {
		return fmt.Errorf("%w; the run is kept, and \"skiff get runs\" shows it once a daemon is up", err)
	}
	s.notePeer(ctx)
	return nil
}

// close ends a daemon that this command started for itself. Where other runs
// are active on it, or are to come by a schedule, one in the background takes
// them over.
func (s *session) close() {
	if s.embedded == nil {
		return
	}
	handOver := !s.cfg.Reading && s.othersActive()
	s.embedded.stop()
	<-s.embedded.done
	if err := s.embedded.err; err != nil {
		s.app.notef("skiff: the daemon did not end in order: %v", err)
	}
	s.embedded = nil
	if !handOver {
		return
	}
	if err := daemon.Background(s.cfg); err != nil {
		s.app.notef("skiff: other runs are active or to come and wait for the next daemon; start one with \"skiff up\": %v", err)
	}
}

func (s *session) othersActive() bool {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for plural, field := range map[string]string{"runs": "status.progress=active", "recurringruns": "status.schedule=enabled"} {
		list, err := s.client.List(ctx, mustKind(plural), client.ListOptions{Fields: field, Limit: 1})
		if err == nil && len(list.Items) > 0 {
			return true
		}
	}
	return false
}
