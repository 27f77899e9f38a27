package portable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/skiff-ml/skiff/api/bundle"
	"github.com/skiff-ml/skiff/api/problem"
	"github.com/skiff-ml/skiff/api/skiff"
	"github.com/skiff-ml/skiff/store"
	"github.com/skiff-ml/skiff/store/artifact"
)

// Where the store keeps the kinds that travel, and those that steps need; their
// engines declare them.
const (
	runsKind        = "runs.skiff.dev"
	tasksKind       = "tasks.skiff.dev"
	artifactsKind   = "artifacts.skiff.dev"
	manifestsKind   = "pipelinemanifests.skiff.dev"
	experimentsKind = "experiments.skiff.dev"
	pipelinesKind   = "pipelines.pipelines.kubeflow.org"
	versionsKind    = "pipelineversions.pipelines.kubeflow.org"

	secretsKind    = "secrets"
	configMapsKind = "configmaps"
	claimsKind     = "persistentvolumeclaims"
)

// Their indexes.
const (
	byRun      = "run"
	byCreation = "created"
	byPipeline = "pipeline"
	byID       = "id"
	byName     = "name"
	separator  = "\x00"
)

// Images saves and loads container images.
type Images interface {
	// SaveImage gives an image as an archive that LoadImage takes, and its id.
	// identities are digests and ids of which it must have one; none means that
	// whatever has the reference will do. The caller closes the archive.
	SaveImage(ctx context.Context, ref string, identities []string) (id string, archive io.ReadCloser, err error)
	// LoadImage loads an archive, which must hold the one image of that id and
	// names none. made is false where the image was there.
	LoadImage(ctx context.Context, id string, archive io.ReadSeeker) (made bool, err error)
	// NameImage gives an image a reference, unless that is taken.
	NameImage(ctx context.Context, id, ref string) error
	// DropImage removes an image that nothing uses.
	DropImage(ctx context.Context, id string) error
}

// Inspect checks a package and gives the manifest that its runs would have.
type Inspect func(ctx context.Context, namespace, filename string, data []byte) (*skiff.PipelineManifest, error)

// Config is what a Porter is made of. Store, Artifacts, Inspect and Dir are
// required.
type Config struct {
	Store     store.Interface
	Artifacts *artifact.Repository
	Inspect   Inspect
	// Images is nil where the runtime has none.
	Images Images
	// Dir is a folder for spools; what is in it is gone with the process.
	Dir string
	// Version is the program's, for manifests.
	Version string
	// Limits bound what is imported; zero fields mean the defaults.
	Limits bundle.Limits
	Logger *slog.Logger
	// Now replaces time.Now in tests.
	Now func() time.Time
}

// Porter exports and imports. It is safe for concurrent use.
type Porter struct {
	cfg Config
	log *slog.Logger
	// publishing is held by the one import that has got beyond its checks.
	publishing chan struct{}
	// at is called between the steps of an import; tests end it there.
	at func(step string) error
}

// New returns a Porter. Recover is to be called before the first import.
func New(cfg Config) (*Porter, error) {
	if cfg.Store == nil || cfg.Artifacts == nil || cfg.Inspect == nil || cfg.Dir == "" {
		return nil, errors.New("portable: Store, Artifacts, Inspect and Dir are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Porter{cfg: cfg, log: cfg.Logger, publishing: make(chan struct{}, 1), at: func(string) error { return nil }}, nil
}

// refuse is a problem with what was asked for, or with a bundle; nothing was
// written then.
func refuse(object, hint, format string, args ...any) error {
	return problem.List{{Object: object, Err: fmt.Errorf(format, args...), Hint: hint}}
}

// scratch makes a file that nobody else can open and that is gone when it is
// closed.
func (p *Porter) scratch() (*os.File, error) {
	if err := os.MkdirAll(p.cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for spools: %w", err)
	}
	f, err := os.CreateTemp(p.cfg.Dir, "spool-*")
	if err != nil {
		return nil, fmt.Errorf("make a spool: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(fmt.Errorf("make a spool: %w", err), f.Close())
	}
	return f, nil
}
