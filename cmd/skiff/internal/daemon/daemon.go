package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	goruntime "runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/server"
	"github.com/skiff-ml/skiff/server/auth"
	"github.com/skiff-ml/skiff/server/listen"
	"github.com/skiff-ml/skiff/store"
)

// daemon is one running daemon. It answers requests from the moment its store
// is open; what needs the engines waits until the machine has been looked at.
type daemon struct {
	cfg     Config
	log     *slog.Logger
	store   *store.Store
	started time.Time

	// engines are set once up is closed.
	engines atomic.Pointer[engines]
	up      chan struct{}
}

// errIdle ends a daemon that was to run only while there is work.
var errIdle = errors.New("no run is active and none is to come")

// Run is a daemon's life. It returns nil after ctx has ended and everything that
// must be kept is kept; what runs goes on, for the next daemon to take over.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.Check(); err != nil {
		return err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	opened, err := openStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	d := &daemon{cfg: cfg, log: cfg.Logger, store: opened, started: time.Now(), up: make(chan struct{})}
	s, listeners, err := d.listen(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Serve(ctx, listeners...) })
	group.Go(func() error { return d.runEngines(ctx) })
	if cfg.UntilIdle {
		group.Go(func() error { return d.endWhenIdle(ctx) })
	}
	if cfg.OnReady != nil {
		cfg.OnReady(tcpAddress(listeners))
	}
	err = group.Wait()
	// Only now does no request use them any more.
	if e := d.engines.Load(); e != nil {
		closeBackend(e.backend)
		err = errors.Join(err, e.repository.Close())
	}
	if errors.Is(err, errIdle) || (ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// listen opens the sockets and makes the server behind them. It runs after the
// store is open, so that only the one daemon of a folder gets here.
func (d *daemon) listen(ctx context.Context) (*server.Server, []net.Listener, error) {
	token, err := auth.EnsureAdminToken(d.cfg.StateDir)
	if err != nil {
		return nil, nil, err
	}
	peers, err := d.peers()
	if err != nil {
		return nil, nil, err
	}
	s, err := server.New(server.Config{
		Store: d.store, Pipelines: d, Logs: d, Artifacts: d, Node: d, Pods: d, Retention: d, AdminToken: token, Peers: peers, Hosts: d.hosts(),
		Backup: func(ctx context.Context, w io.Writer) error { return d.store.Backup(ctx, w) },
		Version: server.VersionInfo{Major: "1", Minor: "33", GitVersion: "v1.33.0+skiff", SkiffVersion: d.cfg.Version,
			GoVersion: goruntime.Version(), Platform: goruntime.GOOS + "/" + goruntime.GOARCH},
		PipelineSources: d.cfg.pipelineReach(),
		Logger:          d.log,
	})
	if err != nil {
		return nil, nil, err
	}
	unix, err := listen.Unix(ctx, d.cfg.StateDir)
	if err != nil {
		return nil, nil, err
	}
	listeners := []net.Listener{unix}
	if d.cfg.Listen != "" {
		tcp, err := d.listenTCP(ctx)
		if err != nil {
			return nil, nil, errors.Join(err, unix.Close())
		}
		listeners = append(listeners, tcp)
	}
	return s, listeners, nil
}

func (d *daemon) listenTCP(ctx context.Context) (net.Listener, error) {
	config, err := listen.TLSConfig(d.cfg.StateDir, time.Now(), d.hosts()...)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	tcp, err := lc.Listen(ctx, "tcp", d.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; another program has the port, choose one with --listen HOST:PORT", d.cfg.Listen, err)
	}
	// Off the loopback a token in clear would be anybody's.
	addr, ok := tcp.Addr().(*net.TCPAddr)
	return listen.Split(tcp, config, ok && addr.IP.IsLoopback()), nil
}

// hosts are the names in requests and certificates, besides the loopback's.
func (d *daemon) hosts() []string {
	hosts := append([]string(nil), d.cfg.Hosts...)
	if host, _, err := net.SplitHostPort(d.cfg.Listen); err == nil && host != "" {
		if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
			return append(hosts, host)
		}
		if name, err := os.Hostname(); err == nil {
			hosts = append(hosts, name)
		}
	}
	return hosts
}

func tcpAddress(listeners []net.Listener) string {
	for _, l := range listeners {
		if addr, ok := l.Addr().(*net.TCPAddr); ok {
			return addr.String()
		}
	}
	return ""
}

// await waits until the engines are up.
func (d *daemon) await(ctx context.Context) (*engines, error) {
	select {
	case <-d.up:
		return d.engines.Load(), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the engines to come up: %w", context.Cause(ctx))
	}
}
