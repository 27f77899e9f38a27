package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-ml/skiff/api/address"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/server/auth"
	"github.com/skiff-ml/skiff/server/kfp"
	"github.com/skiff-ml/skiff/server/kube"
	"github.com/skiff-ml/skiff/server/listen"
	"github.com/skiff-ml/skiff/server/route"
	"github.com/skiff-ml/skiff/server/view"
	"github.com/skiff-ml/skiff/store"
)

const (
	// headerTimeout ends connections that send their headers drop by drop.
	headerTimeout = 10 * time.Second
	// bodyTimeout bounds the reading of a body; the largest takes a second on
	// a loopback, minutes on a poor link.
	bodyTimeout = 2 * time.Minute
	// idleTimeout is longer than the interval at which clients poll.
	idleTimeout = 2 * time.Minute
	// maxHeader is 16 times what our own clients send.
	maxHeader = 64 << 10
	// shutdownTimeout is how long requests in progress have when the daemon
	// ends; streams are told at once.
	shutdownTimeout = 5 * time.Second
)

// Config is what a Server needs. Store, Pipelines, Logs and Node are required.
type Config struct {
	Store     store.Interface
	Pipelines Pipelines
	Logs      Logs
	// Artifacts opens contents; nil means that they are not served.
	Artifacts Artifacts
	Node      NodeSource
	// Retention gives up what is kept too long; nil means that nothing does.
	Retention Retention
	// Pods runs commands in pods; nil means that there is no such thing.
	Pods Pods
	// Portable carries pipelines and runs; nil means that there is no such thing.
	Portable Portable
	// Backup writes a hot copy of the store; nil means there is no such thing.
	Backup func(ctx context.Context, w io.Writer) error
	// PipelineSources says from where pipelines may be fetched by address.
	PipelineSources address.Reach
	// AdminToken is what clients on TCP show.
	AdminToken string
	// Peers knows callers on TCP that show no token; nil means that all must.
	Peers auth.Peers
	// Authorizer decides who may do what; nil lets the administrator do
	// everything and others nothing.
	Authorizer auth.Authorizer
	// Hosts are names besides the loopback's that requests may be addressed to.
	Hosts   []string
	Version VersionInfo
	// Ready is closed when the daemon can take work; nil means it can.
	Ready  <-chan struct{}
	Logger *slog.Logger
	// Now is the server's clock; time.Now by default.
	Now func() time.Time
}

// Submission is a pipeline package and what to run it with. The JSON names are
// those of the options of the submit endpoint.
type Submission struct {
	Namespace   string `json:"-"`
	DisplayName string `json:"displayName,omitempty"`
	// Filename tells the package's format and names it in messages.
	Filename string `json:"filename,omitempty"`
	// Package is the file's contents: YAML or JSON, or a zip or tar.gz of one.
	Package []byte `json:"package"`
	// Parameters are typed values, Arguments text to be typed by the
	// pipeline's inputs ("k=v" of a command line).
	Parameters   map[string]json.RawMessage `json:"parameters,omitempty"`
	Arguments    map[string]string          `json:"arguments,omitempty"`
	PipelineRoot string                     `json:"pipelineRoot,omitempty"`
	DisableCache bool                       `json:"disableCache,omitempty"`
	// CacheMaxAge and CacheTasks: see skiff.RunSpec.
	CacheMaxAge string            `json:"cacheMaxAge,omitempty"`
	CacheTasks  map[string]string `json:"cacheTasks,omitempty"`
	Verbatim    bool              `json:"verbatim,omitempty"`
	CheckImages bool              `json:"checkImages,omitempty"`
	Priority    int32             `json:"priority,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	// Description, and what the run belongs to: see skiff.RunSpec. An empty
	// Experiment is the namespace's default one.
	Description string `json:"description,omitempty"`
	Experiment  string `json:"experiment,omitempty"`
	// PauseOnFailureSeconds: see skiff.RunSpec.
	PauseOnFailureSeconds int64 `json:"pauseOnFailureSeconds,omitempty"`
	// Resume names a run to go on from: what is unchanged of it is taken over,
	// and so is whatever this submission leaves out, the package included.
	Resume *skiff.Resume `json:"resume,omitempty"`
	// The rest is for the rooms of the server that submit on somebody's behalf.
	Name            string                          `json:"-"`
	PipelineVersion *skiff.PipelineVersionReference `json:"-"`
	RecurringRun    string                          `json:"-"`
	ScheduledAt     time.Time                       `json:"-"`
	ServiceAccount  string                          `json:"-"`
}

// Pipelines takes in work.
type Pipelines interface {
	// Submit stores a run; an error of class problem.ErrInvalid means that
	// nothing was.
	Submit(ctx context.Context, s Submission) (*skiff.Run, error)
	// Check does what Submit does before it stores anything.
	Check(ctx context.Context, s Submission) error
	// Inspect checks a package, parameters aside, and returns what its runs
	// would be made from. Nothing is stored.
	Inspect(ctx context.Context, namespace, filename string, data []byte) (*skiff.PipelineManifest, error)
	// Retry takes a run up again that has failed or was cancelled: what
	// succeeded is kept. store.ErrConflict where the run is in another state.
	Retry(ctx context.Context, namespace, name string) error
	// Trigger makes a run of a recurring run at once, whatever its schedule.
	// store.ErrNotFound where there is none of that name.
	Trigger(ctx context.Context, namespace, name string) (*skiff.Run, error)
}

// Logs gives out what pods wrote.
type Logs interface {
	// PodLogs writes a pod's output to w until its end or, where Follow is
	// set, until the pod's end. A pod that wrote nothing yet is no error.
	PodLogs(ctx context.Context, namespace, name string, opts LogOptions, w io.Writer) error
	// Usage reads what the running pods use.
	Usage(ctx context.Context) ([]view.Usage, error)
}

// LogOptions select log lines.
type LogOptions struct {
	Container string
	Follow    bool
	// Timestamps puts the time before each line.
	Timestamps bool
	// TailLines limits the output to the last lines; negative means all.
	TailLines int64
	// Stream is "stdout" or "stderr"; empty means both.
	Stream string
}

// Artifacts opens the contents of committed artifacts.
type Artifacts interface {
	// OpenArtifact gives the file of an artifact, or a tar stream of its folder.
	OpenArtifact(ctx context.Context, artifact *skiff.Artifact) (*Content, error)
}

// Retention gives up the contents of artifacts that are kept no longer.
type Retention interface {
	// Purge keeps a namespace to a retention; nil is the one it has. With dryRun
	// it only says what would go.
	Purge(ctx context.Context, namespace string, retention *skiff.Retention, dryRun bool) (*skiff.PurgeReport, error)
}

// Content is what an artifact holds.
type Content struct {
	io.ReadCloser
	// Size is in bytes; negative where unknown.
	Size int64
	// Folder is true where the stream is a tar archive.
	Folder bool
}

// NodeSource describes the machine.
type NodeSource interface {
	Node(ctx context.Context) (*view.Node, error)
}

// VersionInfo is the answer to /version.
type VersionInfo struct {
	// Major and Minor are the version of the Kubernetes API whose manners the
	// server follows, which kubectl looks at.
	Major      string `json:"major"`
	Minor      string `json:"minor"`
	GitVersion string `json:"gitVersion"`
	// SkiffVersion is the daemon's own.
	SkiffVersion string `json:"skiffVersion"`
	GoVersion    string `json:"goVersion"`
	Platform     string `json:"platform"`
}

// Server answers every request to the daemon.
type Server struct {
	cfg     Config
	authn   *auth.Authenticator
	authz   auth.Authorizer
	web     *auth.Web
	kfp     *kfp.API
	routes  []route.Route
	handler http.Handler
	// draining is closed when the server shuts down, to end the streams.
	draining chan struct{}
	drain    sync.Once
}

// errShutdown is why streams end when the daemon does.
var errShutdown = errors.New("the server is shutting down")

// New makes a server.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Pipelines == nil || cfg.Logs == nil || cfg.Node == nil || cfg.AdminToken == "" {
		return nil, errors.New("make server: store, pipelines, logs, node and admin token are required")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Authorizer == nil {
		cfg.Authorizer = auth.AdminOnly{}
	}
	s := &Server{cfg: cfg, authn: auth.NewAuthenticator(cfg.AdminToken, cfg.Peers), authz: cfg.Authorizer, web: auth.NewWeb(cfg.Hosts...), draining: make(chan struct{})}
	s.kfp = s.kfpAPI()
	s.routes = append(s.ownRoutes(), kube.New(kube.Config{Store: cfg.Store, Now: cfg.Now}).Routes()...)
	s.routes = append(s.routes, s.kfp.Routes()...)
	pages, err := pageRoutes()
	if err != nil {
		return nil, err
	}
	s.routes = append(s.routes, pages...)
	s.handler = s.mount()
	return s, nil
}

// Routes are all endpoints, for the tests that hold every one to the checks.
func (s *Server) Routes() []route.Route { return s.routes }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Serve answers on the listeners until ctx ends, then lets requests in progress
// finish for a moment. It closes the listeners.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	server := &http.Server{
		Handler: s,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return s.authn.ConnContext(listen.ConnContext(ctx, c), c)
		},
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, listener := range listeners {
		group.Go(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve on %s: %w", listener.Addr(), err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-ctx.Done()
		s.drain.Do(func() { close(s.draining) })
		// The parent's end is the reason for the shutdown, not a limit to it.
		graceful, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if err := server.Shutdown(graceful); err != nil {
			return errors.Join(fmt.Errorf("shut the server down: %w", err), server.Close())
		}
		return nil
	})
	return group.Wait()
}
